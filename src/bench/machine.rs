//! What this machine has and allows. It does not know what is measured on it.

use std::fs;

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

/// Files that this process may have open.
pub(crate) fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Ports that connections may have on this side.
pub(crate) fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
    match (ends.next(), ends.next()) {
        (Some(low), Some(high)) if low < high => high - low,
        _ => usize::MAX,
    }
}

/// What the figures depend on beside the plan.
pub(crate) fn environment() -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let cpu_info = read("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "overfall": env!("CARGO_PKG_VERSION"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model.map(|(_, model)| model.to_owned()),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "somaxconn": read("/proc/sys/net/core/somaxconn"),
        "port_range": read("/proc/sys/net/ipv4/ip_local_port_range"),
        "descriptor_limit": descriptor_limit(),
        "command_line": std::env::args().skip(1).collect::<Vec<_>>(),
    })
}
