//! docker-compose.yml as data, with its variables filled in.

use std::collections::BTreeMap;
use std::path::Path;
use yaml_rust2::{Yaml, YamlLoader};

/// The services of a compose file.
#[derive(Clone, Debug)]
pub struct Compose {
    pub services: BTreeMap<String, Service>,
}

/// What the tests look at of one service.
#[derive(Clone, Debug)]
pub struct Service {
    pub image: String,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub ports: Vec<String>,
    pub volumes: Vec<String>,
    /// The condition that each other service has to meet first.
    pub depends_on: BTreeMap<String, String>,
    pub healthcheck: Vec<String>,
}

impl Compose {
    /// Reads the file, with `variables` in place of the environment.
    ///
    /// # Panics
    /// When it is not a compose file of the kind this repository writes.
    pub fn read(path: &Path, variables: &BTreeMap<&str, &str>) -> Self {
        let text = std::fs::read_to_string(path).expect("the compose file can be read");
        let documents = YamlLoader::load_from_str(&text).expect("the compose file is YAML");
        let services = documents[0]["services"].as_hash().expect("a compose file has services");
        let service = |(name, yaml): (&Yaml, &Yaml)| {
            (text_of(name, variables), Service::read(yaml, variables))
        };
        Self { services: services.iter().map(service).collect() }
    }

    /// # Panics
    /// When there is no such service.
    pub fn service(&self, name: &str) -> &Service {
        self.services.get(name).unwrap_or_else(|| panic!("the compose file has no service {name}"))
    }
}

impl Service {
    fn read(yaml: &Yaml, variables: &BTreeMap<&str, &str>) -> Self {
        let list = |yaml: &Yaml| {
            yaml.as_vec().into_iter().flatten().map(|item| text_of(item, variables)).collect()
        };
        let pairs = |yaml: &Yaml, value: fn(&Yaml) -> &Yaml| {
            let pairs = yaml.as_hash().into_iter().flatten();
            pairs
                .map(|(name, found)| (text_of(name, variables), text_of(value(found), variables)))
                .collect()
        };
        Self {
            image: text_of(&yaml["image"], variables),
            command: list(&yaml["command"]),
            environment: pairs(&yaml["environment"], |value| value),
            ports: list(&yaml["ports"]),
            volumes: list(&yaml["volumes"]),
            depends_on: pairs(&yaml["depends_on"], |dependency| &dependency["condition"]),
            healthcheck: list(&yaml["healthcheck"]["test"]),
        }
    }
}

/// Only strings: a bare number or boolean in an environment means different things to different parsers.
fn text_of(yaml: &Yaml, variables: &BTreeMap<&str, &str>) -> String {
    let text = yaml.as_str().unwrap_or_else(|| panic!("{yaml:?} is not a string; quote it"));
    interpolate(text, variables)
}

/// Fills in `${NAME:-default}`, the one form of variables that the file uses.
fn interpolate(text: &str, variables: &BTreeMap<&str, &str>) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) =
        rest.split_once('}').unwrap_or_else(|| panic!("`{text}` has a `${{` without its end"));
    let (name, default) = variable.split_once(":-").unwrap_or_else(|| {
        panic!("`{text}` needs `docker compose up` to be told {variable}; give it a default")
    });
    let value = variables.get(name).copied().filter(|value| !value.is_empty()).unwrap_or(default);
    format!("{before}{value}{}", interpolate(after, variables))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_in_for_their_defaults() {
        let variables = BTreeMap::from([("USER", "me"), ("EMPTY", "")]);
        let text = "a://${USER:-nobody}:${PASSWORD:-secret}@${EMPTY:-host}/b";
        assert_eq!(interpolate(text, &variables), "a://me:secret@host/b");
        assert_eq!(interpolate("$5", &variables), "$5");
    }

    #[test]
    #[should_panic(expected = "give it a default")]
    fn a_variable_without_a_default_is_refused() {
        interpolate("${PASSWORD}", &BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "quote it")]
    fn a_bare_number_is_refused() {
        text_of(&Yaml::Integer(1), &BTreeMap::new());
    }
}
