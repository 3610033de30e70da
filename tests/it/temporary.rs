//! Files and processes that end with the test that has them. It knows no server.

use std::{
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

/// A path that nobody else has.
fn path_for(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, SeqCst);
    std::env::temp_dir().join(format!("overfall-it-{}-{count}-{name}", std::process::id()))
}

/// Has a file say this, as editors do: whoever reads it sees the old one or the new one.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("it is written");
    fs::rename(new, file).expect("it is renamed");
}

/// A file, or the path of one that is not there yet.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str) -> Self {
        Self(path_for(name))
    }

    /// One that says this.
    pub(crate) fn with(text: &str) -> Self {
        let file = Self::new("file");
        file.write(text);
        file
    }

    pub(crate) fn write(&self, text: &str) {
        replace(&self.0, text);
    }

    pub(crate) fn read(&self) -> String {
        fs::read_to_string(&self.0).expect("it was written")
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // It may not have been written.
        let _ = fs::remove_file(&self.0);
    }
}

/// A directory.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let path = path_for(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Has the file of this name say this; where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        replace(&path, text);
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left there does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process, which is killed when this is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy with its configuration.
pub(crate) struct HaProxy {
    _process: Process,
    _config: TempFile,
}

impl HaProxy {
    /// None where it is not installed.
    pub(crate) fn start(config: &str) -> Option<Self> {
        let config = TempFile::with(config);
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", config.path()]).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => Some(Self { _process: Process(child), _config: config }),
            Err(error) => {
                eprintln!("SKIPPED: haproxy, a package of Debian, cannot be started: {error}");
                None
            }
        }
    }
}
