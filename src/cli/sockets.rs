//! Sockets that were passed on to this process: by a service manager (`sd_listen_fds(3)`), or by the program
//! whose place it takes. It does not know what is served on them.

use std::{env, net::TcpListener, os::unix::net::UnixStream, process};

use listenfd::ListenFd;
use rustix::net::sockopt;

use super::{
    handover::{self, Manifest, Origin},
    usage::Wrong,
};

/// The first descriptor that is passed on.
pub(super) const FIRST: i32 = 3;
/// Descriptors that may be passed on.
const MOST: usize = 1000;

/// What was passed on, and has not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Passed {
    sockets: Vec<(Origin, TcpListener)>,
    /// Leads to the program whose place this one takes.
    pub(super) predecessor: Option<UnixStream>,
    /// The soft limit of open files that that one was started with.
    pub(super) open_files: Option<u64>,
}

/// Takes what was passed on. It is for the beginning, when no other thread is there: the variables that
/// announce descriptors are removed, so that no child takes them for its own.
pub(super) fn take() -> Result<Passed, Wrong> {
    let manifest = match env::var(handover::VARIABLE) {
        Ok(text) if env::var_os("LISTEN_PID").is_none() => Some(Manifest::parse(&text).ok_or_else(|| {
            Wrong(format!("{} in the environment is for a restart by USR2 alone", handover::VARIABLE))
        })?),
        _ => None,
    };
    let Some(count) = announced(manifest.is_some())? else { return Ok(Passed::default()) };
    let mut descriptors = ListenFd::from_env();
    match manifest {
        Some(manifest) => from_predecessor(&mut descriptors, manifest, count),
        None => from_manager(&mut descriptors, count),
    }
}

/// How many descriptors are for this process, if any.
fn announced(by_predecessor: bool) -> Result<Option<usize>, Wrong> {
    // What is for another process is no concern of this one.
    if !by_predecessor && number("LISTEN_PID")? != Some(process::id() as usize) {
        return Ok(None);
    }
    match number("LISTEN_FDS")? {
        Some(count @ 1..=MOST) => Ok(Some(count)),
        Some(0) | None => Ok(None),
        Some(count) => Err(Wrong(format!("LISTEN_FDS in the environment is {count}; it may be 0 to {MOST}"))),
    }
}

/// A number that the environment has under this name, if it has it.
pub(super) fn number(name: &str) -> Result<Option<usize>, Wrong> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || Wrong(format!("{name} in the environment is {text:?}; it may be a number"));
    number.ok_or_else(wrong).map(Some)
}

fn from_manager(descriptors: &mut ListenFd, count: usize) -> Result<Passed, Wrong> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').filter(|name| !name.is_empty()).chain(std::iter::repeat("unknown"));
    let origins = names.take(count).map(|name| Origin::Manager(name.to_owned())).collect();
    Ok(Passed { sockets: listeners(descriptors, origins)?, ..Passed::default() })
}

fn from_predecessor(descriptors: &mut ListenFd, manifest: Manifest, count: usize) -> Result<Passed, Wrong> {
    // The last is no listener.
    let channel = count - 1;
    let predecessor =
        descriptors.take_custom(channel, libc::AF_UNIX, libc::SOCK_STREAM, "stream").ok().flatten();
    if predecessor.is_none() || manifest.sockets.len() != channel {
        let name = handover::VARIABLE;
        return Err(Wrong(format!("LISTEN_FDS in the environment is {count}, which does not fit {name}")));
    }
    let sockets = listeners(descriptors, manifest.sockets)?;
    Ok(Passed { sockets, predecessor, open_files: manifest.open_files })
}

fn listeners(descriptors: &mut ListenFd, origins: Vec<Origin>) -> Result<Vec<(Origin, TcpListener)>, Wrong> {
    let take = |(index, origin): (usize, Origin)| {
        let socket = descriptors.take_tcp_listener(index).ok().flatten();
        match socket.filter(|socket| sockopt::socket_acceptconn(socket).unwrap_or(false)) {
            Some(socket) => Ok((origin, socket)),
            None => Err(Wrong(format!(
                "descriptor {}, which was passed on as one of {} (LISTEN_FDS), is no listening TCP socket; \
                 give such as ListenStream=8888 makes",
                FIRST as usize + index,
                descriptors.len()
            ))),
        }
    };
    origins.into_iter().enumerate().map(take).collect()
}

impl Passed {
    /// Those that a service manager gave.
    pub(super) fn managers(&mut self) -> Vec<(Origin, TcpListener)> {
        let is_managers = |(origin, _): &mut (Origin, TcpListener)| matches!(origin, Origin::Manager(_));
        self.sockets.extract_if(.., is_managers).collect()
    }

    /// The one that was bound for the same flag with the same value.
    pub(super) fn of(&mut self, origin: &Origin) -> Option<TcpListener> {
        let index = self.sockets.iter().position(|(from, _)| from == origin)?;
        Some(self.sockets.remove(index).1)
    }
}
