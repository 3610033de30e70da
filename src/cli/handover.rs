//! What a program tells the one that takes its place about the descriptors that it passes on, in one variable
//! of the environment. It knows no descriptors.

use std::fmt;

/// The variable. Beside it `LISTEN_FDS` says how many descriptors there are; `LISTEN_PID` cannot be known.
pub(super) const VARIABLE: &str = "OVERFALL_HANDOVER";

/// Where a socket comes from, and so what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A service manager gave it under this name, and keeps it.
    Manager(String),
    /// It was bound to what this flag says, such as `listen`.
    Flag(String, String),
}

impl Origin {
    pub(super) fn listen(addr: &str) -> Self {
        Self::Flag("listen".into(), addr.to_owned())
    }
}

/// What is passed on: sockets in this order, and after them the channel on which the new program says that
/// it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The soft limit of open files that the first of these programs was started with; none where there was
    /// no limit.
    pub(super) open_files: Option<u64>,
    pub(super) sockets: Vec<Origin>,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = self.open_files {
            writeln!(f, "open-files {limit}")?;
        }
        for origin in &self.sockets {
            match origin {
                Origin::Manager(name) => writeln!(f, "manager {name}")?,
                Origin::Flag(flag, value) => writeln!(f, "--{flag} {value}")?,
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// None where it is no manifest.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut manifest = Self { open_files: None, sockets: Vec::new() };
        for line in text.lines() {
            match line.split_once(' ')? {
                ("open-files", limit) => manifest.open_files = Some(limit.parse().ok()?),
                ("manager", name) => manifest.sockets.push(Origin::Manager(name.to_owned())),
                (flag, value) => {
                    let flag = flag.strip_prefix("--")?.to_owned();
                    manifest.sockets.push(Origin::Flag(flag, value.to_owned()));
                }
            }
        }
        Some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for open_files in [None, Some(1024)] {
            let sockets = vec![
                Origin::listen("127.0.0.1:0"),
                Origin::listen("[fe80::1%lo]:80"),
                Origin::Manager("a name".into()),
                Origin::Flag("admin".into(), ":9000".into()),
            ];
            let manifest = Manifest { open_files, sockets };
            assert_eq!(Manifest::parse(&manifest.to_string()), Some(manifest));
        }
        for wrong in ["open-files many", "nonsense", "listen 127.0.0.1:0", "\n"] {
            assert_eq!(Manifest::parse(wrong), None, "{wrong}");
        }
    }
}
