//! What one thread is at: written by it alone, without a lock, and read by whoever asks. It knows neither
//! whose call it is nor who asks.

use std::{
    array,
    fmt::Write,
    sync::atomic::{
        AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
    thread,
    time::{Duration, Instant},
};

/// What a thread does with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// It waits for something to do.
    Idle,
    /// It is in a handler, or between two.
    Handling,
    /// Its handler waits for a client to send.
    Reading,
    /// Its handler waits for a client to take something.
    Writing,
}

const ALL: [At; 4] = [At::Idle, At::Handling, At::Reading, At::Writing];

/// So many bytes are kept of what a call is said to do, in words.
pub(crate) const LABEL_LIMIT: usize = 144;
const WORD: usize = size_of::<u64>();
const WORDS: usize = LABEL_LIMIT / WORD;

/// What one thread is at. Whoever reads it sees a state that was, whole: `version` is odd while it changes,
/// and another afterwards.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Activity {
    began: Instant,
    version: AtomicU64,
    /// By [`At`].
    at: AtomicUsize,
    /// Since when, and since when the call runs, in nanoseconds since `began`; 0 for no call.
    since_ns: AtomicU64,
    call_ns: AtomicU64,
    /// What it has spent at each before that.
    spent_ns: [AtomicU64; ALL.len()],
    /// How long what the call is said to do is, of which only so many bytes are kept.
    length: AtomicU32,
    label: [AtomicU64; WORDS],
}

/// What a thread is at, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// What it has spent at each, the time at what it is at now included.
    pub(crate) spent: Spent,
    pub(crate) call: Option<Call>,
}

/// A call that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) at: At,
    pub(crate) since: Instant,
    /// What it is said to do.
    pub(crate) doing: Option<String>,
}

/// Time by what it was spent at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent([Duration; ALL.len()]);

impl Spent {
    pub(crate) fn at(&self, at: At) -> Duration {
        self.0[at as usize]
    }

    /// Each with what follows from it and the other's.
    pub(crate) fn zip(self, other: Self, with: impl Fn(Duration, Duration) -> Duration) -> Self {
        Self(array::from_fn(|at| with(self.0[at], other.0[at])))
    }
}

impl Activity {
    /// Of a thread that has nothing to do yet.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            version: AtomicU64::new(0),
            at: AtomicUsize::new(At::Idle as usize),
            since_ns: AtomicU64::new(0),
            call_ns: AtomicU64::new(0),
            spent_ns: Default::default(),
            length: AtomicU32::new(0),
            label: Default::default(),
        }
    }

    /// Says what the thread does from this time on.
    pub(crate) fn enter(&self, at: At, now: Instant) {
        let now_ns = self.ns(now);
        self.change(|| {
            let spent = &self.spent_ns[self.at.load(Relaxed)];
            let since_ns = self.since_ns.load(Relaxed);
            spent.store(spent.load(Relaxed) + now_ns.saturating_sub(since_ns), Relaxed);
            self.at.store(at as usize, Relaxed);
            // Times are not always told in their order.
            self.since_ns.store(now_ns.max(since_ns), Relaxed);
        });
    }

    /// Says that a call runs from this time on, of which nobody has said yet what it does.
    pub(crate) fn begin_call(&self, now: Instant) {
        let now_ns = self.ns(now).max(1);
        self.change(|| {
            self.call_ns.store(now_ns, Relaxed);
            self.length.store(0, Relaxed);
        });
    }

    pub(crate) fn end_call(&self) {
        self.change(|| self.call_ns.store(0, Relaxed));
    }

    /// Says what the call does: these parts together, of which so many bytes are kept as there is room for.
    pub(crate) fn describe(&self, parts: &[&str]) {
        let mut bytes = [0; LABEL_LIMIT];
        let mut length = 0;
        for part in parts {
            let room = &mut bytes[length.min(LABEL_LIMIT)..];
            let kept = part.len().min(room.len());
            room[..kept].copy_from_slice(&part.as_bytes()[..kept]);
            length += part.len();
        }
        let words = length.min(LABEL_LIMIT).div_ceil(WORD);
        self.change(|| {
            self.length.store(u32::try_from(length).unwrap_or(u32::MAX), Relaxed);
            for (word, bytes) in self.label.iter().zip(bytes.as_chunks().0).take(words) {
                word.store(u64::from_ne_bytes(*bytes), Relaxed);
            }
        });
    }

    /// What it is at now.
    pub(crate) fn read(&self, now: Instant) -> Snapshot {
        let (at, since_ns, call_ns, mut spent_ns, label) = self.consistently(|| {
            let length = self.length.load(Relaxed) as usize;
            let words = length.min(LABEL_LIMIT).div_ceil(WORD);
            let label: Vec<u64> = self.label[..words].iter().map(|word| word.load(Relaxed)).collect();
            let spent_ns: [u64; ALL.len()] = array::from_fn(|at| self.spent_ns[at].load(Relaxed));
            let (since_ns, call_ns) = (self.since_ns.load(Relaxed), self.call_ns.load(Relaxed));
            (self.at.load(Relaxed), since_ns, call_ns, spent_ns, (label, length))
        });
        spent_ns[at] += self.ns(now).saturating_sub(since_ns);
        let call = (call_ns > 0).then(|| Call {
            at: ALL[at],
            since: self.began + Duration::from_nanos(call_ns),
            doing: readable(&label.0, label.1),
        });
        Snapshot { spent: Spent(spent_ns.map(Duration::from_nanos)), call }
    }

    /// Whether the call that began then still runs.
    pub(crate) fn still_runs(&self, call: &Call) -> bool {
        self.call_ns.load(Acquire) == self.ns(call.since)
    }

    /// As in a seqlock: the writer, of which there is one, makes the version odd before its stores and even
    /// after them.
    fn change(&self, stores: impl FnOnce()) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        stores();
        self.version.store(version.wrapping_add(2), Release);
    }

    fn consistently<T>(&self, loads: impl Fn() -> T) -> T {
        loop {
            let before = self.version.load(Acquire);
            let loaded = loads();
            fence(Acquire);
            if before.is_multiple_of(2) && self.version.load(Relaxed) == before {
                return loaded;
            }
            // The writer may have lost its CPU.
            thread::yield_now();
        }
    }

    fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What was said as text that does no harm to a terminal, and that says so where it was cut; none where
/// nothing was said.
fn readable(words: &[u64], length: usize) -> Option<String> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take(length).collect();
    let mut text = String::new();
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\'' => text.push(char),
                _ => text.extend(char.escape_debug()),
            }
        }
        let is_cut = chunks.peek().is_none() && length > LABEL_LIMIT;
        if !is_cut {
            // Writing to a string does not fail.
            let _ = write!(text, "{}", chunk.invalid().escape_ascii());
        }
    }
    if length > LABEL_LIMIT {
        text.push('…');
    }
    (length > 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn time_is_spent_at_what_it_was_entered_for() {
        let t = Instant::now();
        let activity = Activity::new(t);
        // What it is at from when on, and what it has spent at each 100 ms after the beginning.
        let steps = [
            (At::Idle, 0, [100, 0, 0, 0]),
            (At::Handling, 10, [10, 90, 0, 0]),
            (At::Reading, 15, [10, 5, 85, 0]),
            (At::Handling, 40, [10, 65, 25, 0]),
            (At::Writing, 40, [10, 5, 25, 60]),
            (At::Idle, 70, [40, 5, 25, 30]),
            // A time that was taken before the last.
            (At::Handling, 60, [10, 35, 25, 30]),
        ];
        for (at, ms, spent) in steps {
            activity.enter(at, t + ms * MS);
            let read = activity.read(t + 100 * MS).spent;
            assert_eq!(ALL.map(|at| read.at(at)), spent.map(|ms| ms * MS), "{at:?} {ms}");
        }
    }

    #[test]
    fn a_call_is_known_from_its_beginning_to_its_end_and_what_it_does_once_it_is_said() {
        let t = Instant::now();
        let activity = Activity::new(t);
        assert_eq!(activity.read(t).call, None);
        for doing in [None, Some("GET /a"), Some("POST /b"), None] {
            activity.begin_call(t + 5 * MS);
            if let Some((method, path)) = doing.and_then(|doing| doing.split_once(' ')) {
                activity.describe(&[method, " ", path]);
            }
            let call = activity.read(t + 9 * MS).call.expect("it runs");
            assert_eq!((call.at, call.since), (At::Idle, t + 5 * MS));
            assert_eq!(call.doing.as_deref(), doing);
            assert!(activity.still_runs(&call));
            activity.end_call();
            assert!(!activity.still_runs(&call));
            assert_eq!(activity.read(t).call, None);
        }
    }

    #[test]
    fn what_is_said_is_cut_and_escaped() {
        let activity = Activity::new(Instant::now());
        let (full, over) = ("x".repeat(LABEL_LIMIT), "x".repeat(LABEL_LIMIT - 1));
        let cut = format!("{full}…");
        let cases: [(&[&str], &str); 8] = [
            (&["", "a"], "a"),
            (&["GET", " ", "/it's \"here\""], "GET /it's \"here\""),
            (&["\u{1b}[2J\n\\"], r"\u{1b}[2J\n\\"),
            (&["café \u{202e}"], r"café \u{202e}"),
            (&[&full], &full),
            (&[&full, "y"], &cut),
            (&["x", &full, "y", "z"], &cut),
            // In the middle of a character.
            (&[&over, "é"], &format!("{over}…")),
        ];
        for (parts, expected) in cases {
            activity.begin_call(Instant::now());
            activity.describe(parts);
            let call = activity.read(Instant::now()).call.expect("it runs");
            assert_eq!(call.doing.as_deref(), Some(expected), "{parts:?}");
        }
    }

    #[test]
    fn nobody_sees_one_call_with_the_words_of_another() {
        let activity = Activity::new(Instant::now());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..20_000 {
                    activity.begin_call(Instant::now());
                    let text = char::from(b'a' + (number % 26) as u8).to_string().repeat(64);
                    activity.describe(&[&text]);
                    activity.enter(if number % 2 == 0 { At::Idle } else { At::Handling }, Instant::now());
                }
                done.store(true, Release);
            });
            while !done.load(Acquire) {
                let doing = activity.read(Instant::now()).call.and_then(|call| call.doing);
                if let Some(doing) = doing {
                    assert!(doing.len() == 64 && doing.bytes().all(|byte| byte == doing.as_bytes()[0]));
                }
            }
        });
    }
}
