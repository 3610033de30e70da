//! The settings in force, which others may take the place of while the balancer runs. It decides none.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{
    config::{Config, HttpConfig},
    http::access::AccessLog,
};

/// What is read once for each request or connection, which keeps what it began with.
#[derive(Debug)]
pub(super) struct Live(RwLock<Arc<InForce>>);

#[derive(Debug)]
pub(super) struct InForce {
    pub(super) config: Config,
    /// How requests are served, where it is requests.
    pub(super) http: HttpConfig,
    pub(super) log: Option<Arc<AccessLog>>,
}

impl Live {
    pub(super) fn new(config: Config, log: Option<Arc<AccessLog>>) -> Self {
        Self(RwLock::new(Arc::new(InForce::new(config, log))))
    }

    pub(super) fn get(&self) -> Arc<InForce> {
        Arc::clone(&self.0.read())
    }

    pub(super) fn set(&self, config: Config, log: Option<Arc<AccessLog>>) {
        *self.0.write() = Arc::new(InForce::new(config, log));
    }
}

impl InForce {
    fn new(config: Config, log: Option<Arc<AccessLog>>) -> Self {
        let http = config.http.clone().unwrap_or_default();
        Self { config, http, log }
    }
}
