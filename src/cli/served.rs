//! What runs, as those see it who start and end the process: the program whose place it takes, a service
//! manager, and the program that takes its place. It does not know what is served.

use std::{fmt, io, os::unix::net::UnixStream, sync::Arc};

use overfall::{Handle, admin::Watched};

use super::{
    admin::Answering,
    handover::Origin,
    leave::LeaveArgs,
    restart::{self, Estate},
    systemd,
};

/// A server that runs, and what USR1 shows of it.
pub(super) trait Running: Watched {
    /// Waits for its end.
    fn join(&self) -> overfall::Result<()>;

    fn status(&self) -> impl fmt::Display;
}

impl Running for Handle {
    fn join(&self) -> overfall::Result<()> {
        Handle::join(self)
    }

    fn status(&self) -> impl fmt::Display {
        self.metrics()
    }
}

pub(super) struct Served<R> {
    running: Arc<R>,
    /// Where its listeners come from.
    origins: Vec<Origin>,
    admin: Arc<Answering>,
    leave: LeaveArgs,
}

impl<R: Running> Served<R> {
    pub(super) fn new(
        running: &Arc<R>,
        origins: Vec<Origin>,
        admin: &Arc<Answering>,
        leave: LeaveArgs,
    ) -> Self {
        Self { running: Arc::clone(running), origins, admin: Arc::clone(admin), leave }
    }

    pub(super) fn running(&self) -> &R {
        &self.running
    }

    pub(super) fn handle(&self) -> &Handle {
        self.running.handle()
    }

    /// Takes the place of another program, where there is one, and tells the service manager that it serves,
    /// and as long as it is well.
    pub(super) fn begin(self: &Arc<Self>, predecessor: Option<UnixStream>) -> io::Result<()> {
        let this = Arc::clone(self);
        let serve = move || {
            this.own_listeners();
            systemd::serving(this.handle().local_addrs());
        };
        match predecessor {
            Some(predecessor) => restart::take_place(predecessor, serve)?,
            None => serve(),
        }
        let this = Arc::clone(self);
        systemd::watch(move |within| this.handle().responds(within))
    }

    /// What the other program had is this one's alone; a service manager keeps what it gave.
    fn own_listeners(&self) {
        if !self.origins.iter().any(|origin| matches!(origin, Origin::Manager(_))) {
            self.handle().own_listeners();
        }
        self.admin.own_listeners();
    }

    /// Begins to end it.
    pub(super) fn leave(&self) {
        self.leave.leave(&self.running);
    }

    /// What a program is to have that takes this one's place.
    pub(super) fn estate(&self) -> io::Result<Estate> {
        let estate = self.origins.iter().cloned().zip(self.handle().listeners()?);
        Ok(estate.chain(self.admin.estate()?).collect())
    }

    /// Leaves everything to that program.
    pub(super) fn hand_over(&self) {
        self.admin.hand_over();
        self.handle().share_listeners();
        self.handle().shutdown();
    }
}
