//! The user that the server runs as: Postgres refuses to run as root.

use super::PostgresError;
use nix::unistd::{Gid, Uid, User, chown, geteuid};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// We are an ordinary user.
    Own,
    /// We are root and step down.
    Other {
        uid: Uid,
        gid: Gid,
        /// A directory above the data is closed to the account; it is let through nevertheless.
        is_locked_out: bool,
    },
}

impl Account {
    /// The owner of `data` if there is some, else `postgres`, else `nobody`.
    pub(super) fn choose(data_dir: &Path, data: &Path) -> Result<Self, PostgresError> {
        if !geteuid().is_root() {
            return Ok(Self::Own);
        }
        let is_locked_out = data_dir.ancestors().skip(1).any(|dir| !is_open_to_all(dir));
        if let Ok(metadata) = fs::metadata(data) {
            let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
            return Ok(Self::Other { uid, gid, is_locked_out });
        }
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .ok_or_else(|| PostgresError::Unusable("Postgres cannot run as root, and there is neither a user `postgres` nor `nobody`".to_owned()))?;
        Ok(Self::Other { uid: user.uid, gid: user.gid, is_locked_out })
    }

    /// Makes the account the owner of a file or directory.
    pub(super) fn own(&self, path: &Path) -> Result<(), PostgresError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid, .. } => chown(path, Some(*uid), Some(*gid)).map_err(|error| {
                super::io_error("giving files to the server's user")(error.into())
            }),
        }
    }

    /// A command that runs `program` as the account, with the same process id as what is spawned.
    pub(super) fn command(&self, program: &Path) -> Command {
        match self {
            Self::Own => Command::new(program),
            Self::Other { uid, gid, is_locked_out } => {
                let mut command = Command::new("setpriv");
                command
                    .args([format!("--reuid={uid}"), format!("--regid={gid}")])
                    .arg("--clear-groups");
                if *is_locked_out {
                    command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
                }
                command.arg("--").arg(program);
                command
            }
        }
    }
}

fn is_open_to_all(dir: &Path) -> bool {
    const OTHERS_MAY_PASS: u32 = 0o001;
    fs::metadata(dir).is_ok_and(|metadata| metadata.mode() & OTHERS_MAY_PASS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn arguments(command: &Command) -> Vec<String> {
        command.get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn root_steps_down_and_keeps_a_capability_only_where_it_is_locked_out() {
        let (uid, gid) = (Uid::from_raw(101), Gid::from_raw(104));
        let program = Path::new("/bin/postgres");
        let open = Account::Other { uid, gid, is_locked_out: false };
        assert_eq!(
            arguments(&open.command(program)),
            ["--reuid=101", "--regid=104", "--clear-groups", "--", "/bin/postgres"]
        );
        let closed = Account::Other { uid, gid, is_locked_out: true };
        assert!(
            arguments(&closed.command(program))
                .contains(&"--ambient-caps=+dac_override".to_owned())
        );
        assert_eq!(Account::Own.command(program).get_program(), program);
    }

    #[test]
    fn a_private_directory_locks_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let set_mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode));
        set_mode(0o700).unwrap();
        assert!(!is_open_to_all(dir.path()));
        set_mode(0o711).unwrap();
        assert!(is_open_to_all(dir.path()));
        assert!(is_open_to_all(Path::new("/")));
    }
}
