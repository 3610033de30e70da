//! Everything that is shown, as it is at one moment. It knows neither Prometheus nor JSON.

use std::time::{Duration, Instant};

use super::{
    agent::Sums,
    process,
    readiness::{Readiness, Signs},
    watched::Watched,
};
use crate::{
    balance::Snapshot,
    metrics::Metrics,
    server::{Advice, Config, WorkersReport},
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
        self.readiness_with(self.watched.upstreams().as_ref())
    }

    /// How long clients can bear to wait.
    pub(super) fn tolerance(&self) -> Duration {
        self.watched.handle().tolerance()
    }

    pub(super) fn sums(&self) -> Sums {
        Sums::of(&self.watched.handle().metrics(), self.watched.upstreams().as_ref())
    }

    fn readiness_with(&self, upstreams: Option<&Snapshot>) -> Readiness {
        let handle = self.watched.handle();
        let up = |snapshot: &Snapshot| snapshot.upstreams.iter().filter(|upstream| upstream.up).count();
        Readiness::of(Signs {
            dead: handle.dead(),
            leaving: handle.is_leaving(),
            draining: handle.is_draining(),
            upstreams_up: upstreams.map(up),
        })
    }

    pub(super) fn figures(&self) -> Figures {
        let handle = self.watched.handle();
        let upstreams = self.watched.upstreams();
        Figures {
            readiness: self.readiness_with(upstreams.as_ref()),
            uptime: self.began.elapsed(),
            metrics: handle.metrics(),
            workers: handle.workers(),
            advice: handle.advice(),
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
        server::Server,
    };

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
