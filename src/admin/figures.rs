//! Everything that is shown, as it is at one moment. It knows neither Prometheus nor JSON.

use std::time::{Duration, Instant};

use super::{
    process,
    readiness::{Readiness, Signs},
    sums::Sums,
    watched::{Watched, up},
};
use crate::{
    balance::Snapshot,
    metrics::Metrics,
    server::{Advice, Config, SourceReport, WorkersReport},
};

/// Where figures come from.
pub(super) struct Source {
    watched: Box<dyn Watched>,
    began: Instant,
}

/// Everything that is known now.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) readiness: Readiness,
    /// For how long it has been watched.
    pub(super) uptime: Duration,
    pub(super) metrics: Metrics,
    pub(super) workers: WorkersReport,
    pub(super) advice: Option<Advice>,
    pub(super) sources: Vec<SourceReport>,
    pub(super) upstreams: Option<Snapshot>,
    /// The server's settings in force.
    pub(super) config: Config,
    /// None where the system does not say.
    pub(super) process: Option<process::Figures>,
}

impl Source {
    pub(super) fn new(watched: impl Watched) -> Self {
        Self { watched: Box::new(watched), began: Instant::now() }
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.readiness_with(self.watched.upstreams_up())
    }

    fn readiness_with(&self, upstreams_up: Option<usize>) -> Readiness {
        let handle = self.watched.handle();
        Readiness::of(Signs {
            dead: handle.dead(),
            leaving: handle.is_leaving(),
            draining: handle.is_draining(),
            upstreams_up,
        })
    }

    /// How long clients can bear to wait.
    pub(super) fn tolerance(&self) -> Duration {
        self.watched.handle().tolerance()
    }

    pub(super) fn sums(&self) -> Sums {
        Sums::of(&self.watched.handle().metrics(), self.watched.upstreams().as_ref())
    }

    pub(super) fn figures(&self) -> Figures {
        let handle = self.watched.handle();
        let upstreams = self.watched.upstreams();
        let (workers, advice) = handle.workers_and_advice();
        Figures {
            readiness: self.readiness_with(upstreams.as_ref().map(up)),
            uptime: self.began.elapsed(),
            metrics: handle.metrics(),
            workers,
            advice,
            sources: handle.sources(),
            upstreams,
            config: handle.config(),
            process: process::Figures::now().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::{self, Request, Response},
        server::{Handle, Server},
    };

    /// A server whose upstreams are not to be looked at, but for how many there are.
    struct Quick(Handle);

    impl Watched for Quick {
        fn handle(&self) -> &Handle {
            &self.0
        }

        fn upstreams(&self) -> Option<Snapshot> {
            panic!("everything is asked for");
        }

        fn upstreams_up(&self) -> Option<usize> {
            Some(0)
        }
    }

    #[test]
    fn whether_it_is_ready_is_not_asked_of_everything() {
        let server = Server::builder().bind("127.0.0.1:0").workers(1);
        let handle = http::serve(server, |_: &Request<'_>| Response::text("")).unwrap();
        assert_eq!(Source::new(Quick(handle)).readiness(), Readiness::NoUpstream);
    }

    #[test]
    fn a_server_that_has_lost_a_thread_has_failed() {
        let server = Server::builder().bind("127.0.0.1:0").workers(1);
        let handle = http::serve(server, |_: &Request<'_>| Response::text("")).unwrap();
        let died = handle.on_death("a worker");
        let source = Source::new(handle);
        assert_eq!(source.readiness(), Readiness::Ready);
        died();
        assert_eq!(source.readiness(), Readiness::Failed("a worker"));
    }
}
