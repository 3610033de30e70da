//! What the groups are called that help shows flags in, the same in every command. It knows no flag.

pub(super) const UPSTREAMS: &str = "Upstreams";
pub(super) const CHECKS: &str = "Checks";
pub(super) const HTTP: &str = "HTTP";
pub(super) const SERVING: &str = "Serving";
pub(super) const FULL: &str = "When it is full";
pub(super) const TARGETS: &str = "Targets";
pub(super) const EXCHANGE: &str = "What is sent and expected";
pub(super) const TIMEOUTS: &str = "Timeouts";
pub(super) const ENTRY: &str = "Encryption and proxies";
pub(super) const WATCHING: &str = "Watching it";
pub(super) const LOGS: &str = "Logs";
pub(super) const MEASURED: &str = "What is measured";
pub(super) const ARMS: &str = "Arms";
pub(super) const OVERLOAD: &str = "Overload";
pub(super) const REPORT: &str = "Report";
pub(super) const OUTPUT: &str = "Output";
pub(super) const EXPERIMENTS: &str = "Experiments";
pub(super) const SETTINGS: &str = "Settings";
pub(super) const HELP: &str = "Help";
