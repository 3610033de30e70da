//! The value of `Date`, made once a second by each thread. It does not know what is dated.

use std::{
    cell::RefCell,
    time::{Duration, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

/// Appends the time as RFC 9110, section 5.6.7, wants it.
pub(super) fn append(out: &mut Vec<u8>) {
    thread_local! {
        static CACHED: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    // Milliseconds are of no concern, and the coarse clock is the cheapest.
    let second = clock_gettime(ClockId::RealtimeCoarse).tv_sec.unsigned_abs();
    CACHED.with_borrow_mut(|(at, text)| {
        if *at != second {
            *at = second;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        out.extend_from_slice(text.as_bytes());
    });
}
