//! Which signals we were started with ignored. It does not know what a command does at the others.

/// Whether we were started with this signal ignored, as `nohup` does with HUP and shells do with INT in the
/// background: then it stays so, for us and for what we start.
pub(super) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}
