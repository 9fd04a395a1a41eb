//! Fetches Apache Kafka's jars from the Maven repository that the machine is set up for, once.

use super::{KafkaError, io_error};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "4.1.0";
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tallymark</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.1.0</version>
    </dependency>
    <!-- The administrator's programs. What they need beyond the above is for programs not used here. -->
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>4.1.0</version>
      <exclusions>
        <exclusion>
          <groupId>*</groupId>
          <artifactId>*</artifactId>
        </exclusion>
      </exclusions>
    </dependency>
    <!-- Kafka logs through slf4j and brings no implementation of it. -->
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#;

/// The directory of the jars; fetches them (43 MB) when this machine does not have them yet.
///
/// Programs that ask at the same time wait for the first of them.
pub fn ensure_jars() -> Result<PathBuf, KafkaError> {
    require("java", "-version")?;
    let cache = crate::cache_dir();
    // The name says what is in it: a directory without the tools is another one.
    let jars = cache.join(format!("kafka-{VERSION}-with-tools"));
    if is_complete(&jars) {
        return Ok(jars);
    }
    fs::create_dir_all(&cache).map_err(io_error("making the cache directory"))?;
    let lock = File::create(cache.join(format!("kafka-{VERSION}.lock")))
        .map_err(io_error("opening the lock of the Kafka download"))?;
    lock.lock().map_err(io_error("waiting for another Kafka download"))?;
    if is_complete(&jars) {
        return Ok(jars);
    }
    require("mvn", "--version")?;
    tracing::info!(version = VERSION, "fetching Apache Kafka with Maven, 43 MB");
    let fetching = tempfile::Builder::new()
        .prefix("kafka-fetching-")
        .tempdir_in(&cache)
        .map_err(io_error("making a directory for the Kafka download"))?;
    fetch(fetching.path())?;
    // What is left of an older, incomplete one would be in the way of the rename.
    if jars.exists() {
        fs::remove_dir_all(&jars).map_err(io_error("removing incomplete Kafka jars"))?;
    }
    fs::rename(fetching.path().join("jars"), &jars).map_err(io_error("keeping the Kafka jars"))?;
    Ok(jars)
}

fn is_complete(jars: &Path) -> bool {
    // The directory appears under its name in one step, complete.
    jars.join(format!("kafka-tools-{VERSION}.jar")).is_file()
}

fn fetch(directory: &Path) -> Result<(), KafkaError> {
    fs::write(directory.join("pom.xml"), POM)
        .map_err(io_error("writing the list of Kafka jars"))?;
    let output = Command::new("mvn")
        .current_dir(directory)
        .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg("-DoutputDirectory=jars")
        .output()
        .map_err(io_error("running Maven"))?;
    if output.status.success() && is_complete(&directory.join("jars")) {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(KafkaError::Program { program: "mvn", output: String::from_utf8_lossy(&text).into_owned() })
}

fn require(program: &'static str, argument: &str) -> Result<(), KafkaError> {
    match Command::new(program).arg(argument).output() {
        Ok(_) => Ok(()),
        Err(_) => Err(KafkaError::NotInstalled { program }),
    }
}
