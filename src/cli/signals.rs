//! Which signals we were started with ignored, and how the others are caught without losing one. It does not
//! know what a command does at them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use signal_hook::{flag, iterator::Signals};

/// Signals that are caught.
pub(super) struct Caught {
    signals: Signals,
    /// One that came before all was set up, when the first of several handlers was there.
    early: Arc<AtomicUsize>,
}

/// Catches signals that are to end us, and others. Those that end us `twice` do so at once, with the status
/// by which a shell says which signal it was, when one of the former has come before, whatever whoever hears
/// of them is doing.
pub(super) fn catch(ending: &[i32], twice: &[i32], others: &[i32]) -> io::Result<Caught> {
    let (early, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    for &signal in ending {
        flag::register_usize(signal, Arc::clone(&early), signal.unsigned_abs() as usize)?;
    }
    // Before what sets `again`, or else the first would be taken for the second.
    for &signal in twice {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
    }
    for &signal in ending {
        flag::register(signal, Arc::clone(&again))?;
    }
    let signals = Signals::new(ending.iter().chain(others))?;
    Ok(Caught { signals, early })
}

impl Caught {
    /// Calls this for each signal, until the process ends.
    pub(super) fn heed(mut self, mut heed: impl FnMut(i32)) {
        if let Ok(early @ 1..) = i32::try_from(self.early.load(SeqCst)) {
            heed(early);
        }
        self.signals.forever().for_each(heed);
    }
}

/// Whether we were started with this signal ignored, as `nohup` does with HUP and shells do with INT in the
/// background: then it stays so, for us and for what we start.
pub(super) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use signal_hook::{consts::SIGTERM, low_level::raise};

    use super::*;

    /// Says that this process is there to be ended.
    const TO_BE_ENDED: &str = "OVERFALL_TEST_TO_BE_ENDED";

    #[test]
    fn a_second_signal_ends_it_whatever_whoever_hears_of_the_first_is_doing() {
        if std::env::var_os(TO_BE_ENDED).is_some() {
            let mut caught = catch(&[SIGTERM], &[SIGTERM], &[]).unwrap();
            raise(SIGTERM).unwrap();
            // Nobody has heard of it yet, and it is not lost.
            assert!(caught.signals.pending().eq([SIGTERM]));
            raise(SIGTERM).unwrap();
            return;
        }
        let this =
            "cli::signals::tests::a_second_signal_ends_it_whatever_whoever_hears_of_the_first_is_doing";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", this]).env(TO_BE_ENDED, "1").stdout(Stdio::null());
        assert_eq!(command.status().unwrap().code(), Some(128 + SIGTERM));
    }
}
