//! Folders of a running endpoint: what it remembers, and where it can be asked.

use std::ffi::OsString;
use std::path::PathBuf;

/// The name of this program's folder in shared ones.
const NAME: &str = "pktendpt";
/// The socket in the folder of the run.
const SOCKET: &str = "status.sock";

/// What decides about folders, apart from the configuration.
pub struct Surroundings<'a> {
    pub root: bool,
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Surroundings<'static> {
    /// Those of this process.
    pub fn here() -> Self {
        Self { root: rustix::process::geteuid().is_root(), variable: &|name| std::env::var_os(name) }
    }
}

impl Surroundings<'_> {
    /// The folder of what outlives a run; `None`: nothing says where.
    pub fn state(&self) -> Option<PathBuf> {
        if let Some(given) = self.first("STATE_DIRECTORY") {
            return Some(given);
        }
        if self.root {
            return Some(PathBuf::from("/var/lib").join(NAME));
        }
        let base = self.path("XDG_STATE_HOME").or_else(|| Some(self.path("HOME")?.join(".local/state")))?;
        Some(base.join(NAME))
    }

    /// The socket at which a running endpoint answers; `state` serves users without a folder for the session.
    pub fn socket(&self, state: Option<PathBuf>) -> Option<PathBuf> {
        let folder = match self.first("RUNTIME_DIRECTORY") {
            Some(given) => given,
            None if self.root => PathBuf::from("/run").join(NAME),
            None => match self.path("XDG_RUNTIME_DIR") {
                Some(base) => base.join(NAME),
                None => state?,
            },
        };
        Some(folder.join(SOCKET))
    }

    /// The first of several folders, as the service manager gives them.
    fn first(&self, variable: &str) -> Option<PathBuf> {
        let value = self.path(variable)?;
        let text = value.to_str()?;
        Some(PathBuf::from(text.split(':').next()?)).filter(|path| path.is_absolute())
    }

    /// Relative paths in these variables are to be ignored, says the XDG base directory specification.
    fn path(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(root: bool, variables: &[(&str, &str)]) -> (Option<PathBuf>, Option<PathBuf>) {
        let variable = |name: &str| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| OsString::from(value))
        };
        let surroundings = Surroundings { root, variable: &variable };
        let state = surroundings.state();
        (state.clone(), surroundings.socket(state))
    }

    fn paths(state: &str, socket: &str) -> (Option<PathBuf>, Option<PathBuf>) {
        (Some(state.into()), Some(socket.into()))
    }

    #[test]
    fn each_user_has_folders() {
        let root = paths("/var/lib/pktendpt", "/run/pktendpt/status.sock");
        assert_eq!(with(true, &[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")]), root);
        let service = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("RUNTIME_DIRECTORY", "/run/a")];
        assert_eq!(with(false, &service), paths("/var/lib/a", "/run/a/status.sock"));
        let user = [("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        let of_user = paths("/home/u/.local/state/pktendpt", "/run/user/7/pktendpt/status.sock");
        assert_eq!(with(false, &user), of_user);
        let moved = [("HOME", "/home/u"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(with(false, &moved), paths("/s/pktendpt", "/s/pktendpt/status.sock"));
        assert_eq!(with(false, &[("XDG_STATE_HOME", "relative")]), (None, None));
    }
}
