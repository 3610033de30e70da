//! Ready-made peers: servers that many know, each made of one file where it is installed. It does not know
//! what is measured with them.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;

use super::{
    arm::{Arm, How},
    exchange::Protocol,
    plan::Scenario,
};

/// A server that need not be described to be measured.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What has to be installed, and the package of Debian that has it.
    program: &'static str,
    package: &'static str,
    version: &'static str,
    /// What it is made of: the file's name, and what is in it.
    file: &'static str,
    text: &'static str,
    /// How it is started, where it need not be built.
    start: Option<&'static str>,
    protocols: &'static [Protocol],
    /// Whether it burns CPU for each request when it is told to.
    burns: bool,
}

/// Programs of the system's administrator are not on everybody's path.
const ALSO_THERE: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Connections beside the silent ones, of a peer that has to know how many there will be.
const ACTIVE: usize = 1024;

impl Peer {
    pub(crate) const ALL: [&'static Self; 3] = [
        &Self {
            name: "nginx",
            program: "nginx",
            package: "nginx",
            version: "-v",
            file: "nginx.conf",
            text: include_str!("peers/nginx.conf"),
            start: Some("-c"),
            protocols: &[Protocol::Http],
            burns: false,
        },
        &Self {
            name: "haproxy",
            program: "haproxy",
            package: "haproxy",
            version: "-v",
            file: "haproxy.cfg",
            text: include_str!("peers/haproxy.cfg"),
            start: Some("-db -f"),
            protocols: &[Protocol::Http],
            burns: false,
        },
        &Self {
            name: "go",
            program: "go",
            package: "golang-go",
            version: "version",
            file: "go.go",
            text: include_str!("peers/go.go"),
            start: None,
            protocols: &[Protocol::Tcp, Protocol::Http],
            burns: true,
        },
    ];

    /// Whether it can be measured so at all; else why not.
    pub(crate) fn check(
        &self,
        protocol: Protocol,
        scenarios: &[Scenario],
        work: Duration,
    ) -> Result<(), String> {
        let name = self.name;
        if !self.protocols.contains(&protocol) {
            return Err(format!("--peer {name} speaks http only; give --protocol http with it"));
        }
        if !self.burns && !work.is_zero() && scenarios == [Scenario::Overload] {
            return Err(format!(
                "--peer {name} has no part in the scenario overload, for it burns no CPU for a request; choose \
                 another --scenario, or --work 0s"
            ));
        }
        self.find().map(drop)
    }

    /// Where its program is; else what to install.
    fn find(&self) -> Result<PathBuf, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&path).chain(ALSO_THERE.map(PathBuf::from));
        places.find_map(|place| Some(place.join(self.program)).filter(|file| file.is_file())).ok_or_else(
            || {
                format!(
                    "--peer {} needs {}, which is not installed; on Debian, apt install {}",
                    self.name, self.program, self.package
                )
            },
        )
    }

    /// Writes what it is made of, builds it where it has to be, and says how it is started.
    fn prepare(&'static self, dir: &Path, addr: SocketAddr, connections: usize) -> anyhow::Result<Arm> {
        let program = self.find().map_err(anyhow::Error::msg)?;
        let file = dir.join(self.file);
        let (at, connections) = (dir.display().to_string(), connections.to_string());
        let text = self.text.replace("{dir}", &at).replace("{addr}", &addr.to_string());
        fs::write(&file, text.replace("{connections}", &connections))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let command = match self.start {
            // It is not to be held to fewer descriptors than we have.
            Some(flags) => {
                format!("ulimit -n $(ulimit -Hn); exec '{}' {flags} '{}'", program.display(), file.display())
            }
            None => {
                let built = dir.join(self.name);
                build(&program, &file, &built)?;
                format!("exec '{}' {{app}} {{work}} {{addr}}", built.display())
            }
        };
        let how = How::Command { command, addrs: vec![addr] };
        Ok(Arm { name: self.name.into(), how, burns: self.burns })
    }

    /// The first line of what it says of itself, without where there is more of it.
    fn version(&self) -> Option<String> {
        let output = Command::new(self.find().ok()?).arg(self.version).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&said).lines().next()?.split(" - http").next()?.to_owned())
    }
}

/// Builds a program of one file, out of nothing that would have to be fetched.
fn build(program: &Path, file: &Path, built: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(["build", "-o"]).args([built, file]).env("GOPROXY", "off").env("GOTOOLCHAIN", "local");
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it does not say why");
    anyhow::ensure!(output.status.success(), "cannot build {}: {last}", file.display());
    Ok(())
}

/// Peers that can be started; what they are made of is removed with this.
#[derive(Debug)]
pub(crate) struct Peers {
    dir: PathBuf,
    pub(crate) arms: Vec<Arm>,
    /// Which versions they are.
    pub(crate) versions: Value,
}

impl Peers {
    /// Prepares these, for so many silent connections at most.
    pub(crate) fn prepare(peers: &[&'static Peer], idle: usize) -> anyhow::Result<Self> {
        let dir = make_directory().context("cannot make a directory for the peers")?;
        // From here on it is removed, whatever fails.
        let mut prepared = Self { dir, arms: Vec::new(), versions: Value::Null };
        for (peer, addr) in peers.iter().zip(free_addrs(peers.len())?) {
            prepared.arms.push(peer.prepare(&prepared.dir, addr, idle + ACTIVE)?);
            prepared.versions[peer.name] = peer.version().into();
        }
        Ok(prepared)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // What is left there does no harm.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A directory that is nobody else's.
fn make_directory() -> io::Result<PathBuf> {
    let name = format!("overfall-bench-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let dir = env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

/// So many addresses at which nobody listens, all of them different.
fn free_addrs(count: usize) -> io::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_cannot_do_is_said_before_anything_is_measured() {
        let nginx = Peer { program: "no-such-program", ..nginx() };
        let overload = [Scenario::Overload];
        for (protocol, scenarios, work_ms, said) in [
            (
                Protocol::Tcp,
                &Scenario::ALL[..],
                1,
                "--peer nginx speaks http only; give --protocol http with it",
            ),
            (
                Protocol::Http,
                &overload,
                1,
                "--peer nginx has no part in the scenario overload, for it burns no CPU",
            ),
            // What can be measured has to be there.
            (
                Protocol::Http,
                &overload,
                0,
                "--peer nginx needs no-such-program, which is not installed; on Debian, apt install nginx",
            ),
            (Protocol::Http, &Scenario::ALL, 1, "--peer nginx needs no-such-program, which is not installed"),
        ] {
            let wrong = nginx.check(protocol, scenarios, Duration::from_millis(work_ms)).unwrap_err();
            assert!(wrong.starts_with(said), "{wrong}");
        }
    }

    fn nginx() -> Peer {
        let [nginx, ..] = Peer::ALL;
        Peer { ..*nginx }
    }
}
