//! What a dial does at signals: it ends. It does not know what it was dialing for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::SeqCst},
    },
    thread,
};

use anyhow::Context;
use overfall::dial::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::signals::{catch, is_ignored};

/// Ends the dialing at the first signal that is to end it, of which the number is noted, and the process
/// at the second. As the first process of a container it would else ignore them.
pub(super) fn cancel_on_signals(cancel: &Cancel) -> anyhow::Result<Arc<AtomicI32>> {
    let cannot = "cannot catch signals";
    let caught = Arc::new(AtomicI32::new(0));
    let ending: Vec<_> =
        [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)).collect();
    let signals = catch(&ending, &ending, &[]).context(cannot)?;
    let (cancel, noted) = (cancel.clone(), Arc::clone(&caught));
    let heed = move || {
        signals.heed(|signal| {
            noted.store(signal, SeqCst);
            cancel.cancel();
        });
    };
    thread::Builder::new().name("signals".into()).spawn(heed).context(cannot)?;
    Ok(caught)
}
