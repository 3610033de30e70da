//! Files below a directory, and none outside of it. It does not know what they are for.

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// What is no file is opened without waiting, and found out afterwards.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The kernel gives up when somebody renames directories meanwhile.
const ATTEMPTS: u32 = 8;

impl Root {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens what has this path. Links are followed as long as they stay below the directory.
    pub(super) fn find(&self, path: &[&str]) -> io::Result<File> {
        // What could be a path in itself is no name.
        let is_name = |name: &&str| !(matches!(*name, "" | "." | "..") || name.contains(['/', '\0']));
        if !path.iter().all(is_name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let joined = path.join("/");
        let mut attempts = 0;
        loop {
            match openat2(&self.0, &joined, FLAGS, Mode::empty(), beneath) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::AGAIN) if attempts < ATTEMPTS => attempts += 1,
                Err(Errno::INTR) => {}
                // A link that leads outside, or in a circle.
                Err(Errno::XDEV | Errno::LOOP) => return Err(io::ErrorKind::NotFound.into()),
                // An old kernel, or a sandbox that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The same, name by name, and without following links.
    fn walk(&self, path: &[&str]) -> io::Result<File> {
        let Some((last, directories)) = path.split_last() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut at = self.0.try_clone()?;
        for name in directories {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = openat(&at, *name, flags, Mode::empty())?;
        }
        match openat(&at, *last, FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::LOOP) => Err(io::ErrorKind::NotFound.into()),
            file => Ok(file?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{ErrorKind, read_to_string},
        os::unix::fs::symlink,
        path::PathBuf,
    };

    use super::*;

    /// A directory that is gone when this is.
    struct Temporary(PathBuf);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nothing_outside_is_found() {
        let dir = Temporary(std::env::temp_dir().join(format!("overfall-root-{}", std::process::id())));
        let root = dir.0.join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "inside").unwrap();
        fs::write(dir.0.join("secret"), "outside").unwrap();
        symlink("a/b", root.join("in")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink(dir.0.join("secret"), root.join("absolute")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        symlink("../root/a", root.join("round")).unwrap();
        let files = Root::open(&root).unwrap();
        let found = |path: &[&str]| files.find(path).and_then(read_to_string).map_err(|error| error.kind());
        assert_eq!(found(&["a", "b", "file"]).unwrap(), "inside");
        assert_eq!(found(&["in", "file"]).unwrap(), "inside");
        for path in [
            &["..", "secret"][..],
            &["a", "..", "..", "secret"],
            &["a/../../secret"],
            &["a/b/file"],
            &["out"],
            &["absolute"],
            &["circle"],
            &["round", "b", "file"],
            &["", "a"],
            &["."],
            &["a\0"],
            &["none"],
        ] {
            assert_eq!(found(path).unwrap_err(), ErrorKind::NotFound, "{path:?}");
        }
        assert_eq!(found(&["a", "b", "file", "more"]).unwrap_err(), ErrorKind::NotADirectory);
        let walked = |path: &[&str]| files.walk(path).and_then(read_to_string).map_err(|error| error.kind());
        assert_eq!(walked(&["a", "b", "file"]).unwrap(), "inside");
        for path in [&["out"][..], &["in", "file"], &["circle"], &["absolute"], &["none"], &[]] {
            let error = walked(path).unwrap_err();
            assert!(matches!(error, ErrorKind::NotFound | ErrorKind::NotADirectory), "{path:?}: {error}");
        }
    }
}
