//! Has names resolved again and again, and the upstreams follow what they stand for. It decides neither
//! when a name is due nor what becomes of those that come and go.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use super::{
    config::Config,
    live::Live,
    member::Wanted,
    names::{Names, News},
    own::is_own,
    places::Change,
    upstreams::Upstreams,
};
use crate::{
    error::{Error, Result},
    sys::{
        resolver::{Answer, Permit, resolve_apart},
        wait::{Bell, poll_until},
    },
};

/// How a name is resolved; it may take as long as it likes.
pub(super) type Resolver = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// The names, and the upstreams that follow them.
pub(super) struct Directory {
    upstreams: Arc<Upstreams>,
    live: Arc<Live>,
    resolver: Resolver,
    known: Mutex<Known>,
    answers: Arc<Answers>,
    /// How long the start waits for names, and a reload. What comes later is used when it comes.
    first_within: Duration,
    /// Where the balancer listens itself, once it does.
    own: OnceLock<Vec<SocketAddr>>,
    stopped: AtomicBool,
}

struct Known {
    names: Names,
    /// What the upstreams follow now.
    wanted: Vec<Wanted>,
    /// Addresses of the balancer itself, of which that was said.
    left_out: HashSet<SocketAddr>,
}

/// What resolver threads have said that nobody has heeded yet.
struct Answers {
    list: Mutex<Vec<(String, Answer)>>,
    bell: Bell,
}

/// When there are as many resolver threads as may be, the next name is asked for after this.
const BUSY: Duration = Duration::from_millis(100);

impl Directory {
    /// Resolves all names for the first time, as far as that takes no longer than `within`.
    pub(super) fn begin(
        upstreams: Arc<Upstreams>,
        live: Arc<Live>,
        resolver: Resolver,
        within: Duration,
    ) -> Result<Arc<Self>> {
        let now = Instant::now();
        let config = &live.get().config;
        let names = Names::new(config.literals()?, config.resolve_interval, now);
        let bell = Bell::new().map_err(|errno| Error::start("resolving names", errno))?;
        let answers = Arc::new(Answers { list: Mutex::default(), bell });
        let known = Known { names, wanted: Vec::new(), left_out: HashSet::new() };
        let directory = Self {
            upstreams,
            live,
            resolver,
            known: Mutex::new(known),
            answers,
            first_within: within,
            own: OnceLock::new(),
            stopped: AtomicBool::new(false),
        };
        let mut known = directory.known.lock();
        directory.await_first(&mut known.names, None);
        directory.follow(&mut known, false);
        drop(known);
        Ok(Arc::new(directory))
    }

    /// Says where the balancer listens: it is no upstream of its own.
    pub(super) fn listens_on(&self, addrs: &[SocketAddr]) {
        // It says so once.
        let _ = self.own.set(addrs.to_vec());
    }

    /// Has these names from now on, if there is an upstream among them; `commit` puts the settings into
    /// force that they are from, if it can.
    pub(super) fn reload(&self, config: &Config, commit: impl FnOnce() -> Result<()>) -> Result<()> {
        let literals = config.literals()?;
        if let Some((own, _)) = literals.iter().find(|(_, addr)| addr.is_some_and(|addr| self.is_own(addr))) {
            return Err(Error::own_upstream(&own.name));
        }
        let now = Instant::now();
        let mut known = self.known.lock();
        let mut names = Names::new(literals, config.resolve_interval, now);
        names.keep(&known.names, now);
        self.await_first(&mut names, Some(&mut known.names));
        let may_be_none = known.wanted.is_empty();
        let usable = if may_be_none { Ok(()) } else { self.check_that_any_is_usable(&names) };
        if let Err(error) = usable.and_then(|()| commit()) {
            // What was heard of those that were there before counts.
            known.names.keep(&names, now);
            self.answers.bell.ring();
            return Err(error);
        }
        known.names = names;
        self.follow(&mut known, true);
        // Another name may be the next.
        self.answers.bell.ring();
        Ok(())
    }

    fn check_that_any_is_usable(&self, names: &Names) -> Result<()> {
        if !names.wanted(|addr| self.is_own(addr)).is_empty() {
            return Ok(());
        }
        Err(match names.wanted(|_| false).first() {
            Some(own) => Error::own_upstream(&own.name),
            None => Error::upstream("no upstream can be resolved; give one HOST:PORT at least that can be"),
        })
    }

    /// Asks for those names that are due, and waits for those of which nothing is known. What is said of
    /// those `before` counts for them, too.
    fn await_first(&self, names: &mut Names, mut before: Option<&mut Names>) {
        let until = Instant::now() + self.first_within;
        self.ask(names);
        while names.awaits_any() && self.answers.await_some(Some(until)) {
            self.answers.bell.silence();
            self.heed(names, before.as_deref_mut());
        }
        names.give_up().iter().for_each(tell);
    }

    /// Asks for those names that are due.
    fn ask(&self, names: &mut Names) {
        let now = Instant::now();
        for name in names.due(now) {
            let Some(permit) = Permit::take() else {
                names.postponed(&name, now + BUSY);
                continue;
            };
            names.asked(&name, now);
            let resolver = Arc::clone(&self.resolver);
            let (answers, asked) = (Arc::clone(&self.answers), name.clone());
            let answered = move |answer| answers.add(asked, answer);
            if let Err(error) = resolve_apart(permit, &name, move |name| resolver(name), answered) {
                self.answers.add(name, Err(error));
            }
        }
    }

    /// Takes note of what resolver threads have said.
    fn heed(&self, names: &mut Names, mut before: Option<&mut Names>) {
        let (answers, now) = (std::mem::take(&mut *self.answers.list.lock()), Instant::now());
        for (name, answer) in answers {
            let answer = answer.map_err(|error| error.to_string());
            let old = before.as_mut().and_then(|before| before.answered(&name, answer.clone(), now));
            names.answered(&name, answer, now).or(old).iter().for_each(tell);
        }
    }

    /// Has the upstreams follow the names, and the settings where these are new.
    fn follow(&self, known: &mut Known, has_new_settings: bool) {
        let mut left_out = HashSet::new();
        let wanted = known.names.wanted(|addr| self.is_own(addr) && left_out.insert(addr));
        for addr in left_out.difference(&known.left_out) {
            tracing::warn!(%addr, "a name stands for the balancer's own address, which is left out");
        }
        known.left_out = left_out;
        if has_new_settings || wanted != known.wanted {
            let config = &self.live.get().config;
            tell_of(&self.upstreams.set(&wanted, config));
            known.wanted = wanted;
        }
    }

    fn is_own(&self, addr: SocketAddr) -> bool {
        self.own.get().is_some_and(|own| is_own(addr, own))
    }

    /// Goes on until it is told to end.
    fn run(&self) {
        loop {
            // Whoever reloads waits for the same bell, and has this as long as it does.
            let mut known = self.known.lock();
            self.answers.bell.silence();
            if self.stopped.load(SeqCst) {
                return;
            }
            self.heed(&mut known.names, None);
            self.follow(&mut known, false);
            known.names.look(Instant::now()).iter().for_each(tell);
            self.ask(&mut known.names);
            let next = known.names.next();
            drop(known);
            self.answers.await_some(next);
        }
    }
}

impl Answers {
    fn add(&self, name: String, answer: Answer) {
        self.list.lock().push((name, answer));
        self.bell.ring();
    }

    /// Waits for an answer until then; whether there is one.
    fn await_some(&self, until: Option<Instant>) -> bool {
        // It fails only for lack of memory; then it is as if the time had passed.
        poll_until(&mut [PollFd::new(&self.bell, PollFlags::IN)], until).unwrap_or(false)
    }
}

fn tell(news: &News) {
    match news {
        News::Fails { name, cause, has_addrs: true } => {
            tracing::warn!(upstream = name, cause, "cannot be resolved; its addresses stay as they were");
        }
        News::Fails { name, cause, has_addrs: false } => {
            tracing::warn!(upstream = name, cause, "cannot be resolved; it gets nothing until it can be");
        }
        News::Works { name } => tracing::info!(upstream = name, "can be resolved again"),
    }
}

fn tell_of(change: &Change) {
    for upstream in &change.came {
        tracing::info!(upstream = upstream.name, addr = %upstream.addr, "an upstream comes");
    }
    for upstream in &change.left {
        tracing::info!(upstream = upstream.name, addr = %upstream.addr, "an upstream leaves");
    }
}

impl fmt::Debug for Resolving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolving").finish_non_exhaustive()
    }
}

/// The thread that has names resolved. It is told to end, and waited for, when this is dropped.
pub(super) struct Resolving {
    directory: Arc<Directory>,
    thread: Option<JoinHandle<()>>,
}

impl Resolving {
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Begins; `died` is called if the thread panics.
    pub(super) fn start(directory: &Arc<Directory>, died: impl FnOnce() + Send + 'static) -> Result<Self> {
        let shared = Arc::clone(directory);
        let run = move || {
            if panic::catch_unwind(AssertUnwindSafe(|| shared.run())).is_err() {
                died();
            }
        };
        let thread = thread::Builder::new().name("names".into()).spawn(run);
        let thread = Some(thread.map_err(|error| Error::start("resolving names", error))?);
        Ok(Self { directory: Arc::clone(directory), thread })
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        self.directory.stopped.store(true, SeqCst);
        self.directory.answers.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported already. Resolver threads may be left behind.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        io,
        sync::mpsc::{Receiver, channel},
    };

    use super::*;
    use crate::{Server, balance::serve_with};

    const MS: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Names that are what the test says; what is no name of these fails.
    #[derive(Default, Clone)]
    struct Zone(Arc<Mutex<HashMap<&'static str, Vec<SocketAddr>>>>);

    impl Zone {
        fn set(&self, name: &'static str, ports: &[u16]) {
            let addrs = ports.iter().map(|&port| SocketAddr::from(([127, 0, 0, 1], port)));
            self.0.lock().insert(name, addrs.collect());
        }

        fn resolver(&self) -> Resolver {
            let zone = self.clone();
            Arc::new(move |name| zone.0.lock().get(name).cloned().ok_or(io::ErrorKind::NotFound.into()))
        }
    }

    fn config(names: &[&str]) -> Config {
        Config {
            upstreams: names.iter().map(|name| name.parse().unwrap()).collect(),
            resolve_interval: MS,
            check_interval: Duration::from_secs(3600),
            ..Config::default()
        }
    }

    fn begin(names: &[&str], resolver: Resolver, within: Duration) -> Arc<Directory> {
        begin_with(config(names), resolver, within)
    }

    fn begin_with(config: Config, resolver: Resolver, within: Duration) -> Arc<Directory> {
        let upstreams = Upstreams::new(&config, PATIENCE).unwrap();
        Directory::begin(upstreams, Arc::new(Live::new(config, None)), resolver, within).unwrap()
    }

    fn ports(upstreams: &Upstreams) -> Vec<u16> {
        upstreams.snapshot().upstreams.iter().map(|status| status.addr.port()).collect()
    }

    fn await_ports(directory: &Directory, expected: &[u16]) {
        let deadline = Instant::now() + PATIENCE;
        while ports(&directory.upstreams) != expected {
            assert!(Instant::now() < deadline, "{:?}", ports(&directory.upstreams));
            thread::park_timeout(MS);
        }
    }

    #[test]
    fn addresses_come_and_go_with_their_name() {
        let zone = Zone::default();
        zone.set("a:1", &[1, 2]);
        // An address is never asked for.
        let directory = begin(&["127.0.0.1:9", "a:1", "b:1"], zone.resolver(), PATIENCE);
        assert_eq!(ports(&directory.upstreams), [9, 1, 2]);
        let resolving = Resolving::start(&directory, || {}).unwrap();
        zone.set("a:1", &[3, 2]);
        await_ports(&directory, &[9, 2, 3]);
        // One that could not be resolved at first, and an empty answer, which is a failure.
        zone.set("a:1", &[]);
        zone.set("b:1", &[4, 4]);
        await_ports(&directory, &[9, 2, 3, 4]);
        zone.0.lock().clear();
        zone.set("b:1", &[5]);
        await_ports(&directory, &[9, 2, 3, 5]);
        drop(resolving);
    }

    /// A resolver that says when it is called, and answers when it is told to.
    fn gated() -> (Resolver, Receiver<String>, crossbeam_channel::Sender<u16>) {
        let (called, calls) = channel();
        let (open, gate) = crossbeam_channel::unbounded();
        let called = Mutex::new(called);
        let resolver = move |name: &str| {
            let _ = called.lock().send(name.to_owned());
            let port = gate.recv().map_err(io::Error::other)?;
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        };
        (Arc::new(resolver), calls, open)
    }

    #[test]
    fn a_name_that_hangs_holds_up_nothing_and_is_asked_for_once_until_it_answers() {
        let (gated, calls, open) = gated();
        let zone = Zone::default();
        zone.set("a:1", &[1]);
        let quick = zone.resolver();
        let resolver = move |name: &str| if name == "hangs:1" { gated(name) } else { quick(name) };
        let directory = begin(&["hangs:1", "a:1"], Arc::new(resolver), 50 * MS);
        let resolving = Resolving::start(&directory, || {}).unwrap();
        for port in [1, 2, 3] {
            zone.set("a:1", &[port]);
            await_ports(&directory, &[port]);
        }
        assert_eq!(calls.try_iter().count(), 1);
        open.send(7).unwrap();
        await_ports(&directory, &[7, 3]);
        // The end waits for nobody.
        calls.recv_timeout(PATIENCE).unwrap();
        drop(resolving);
        drop(open);
    }

    #[test]
    fn names_are_reloaded_if_there_is_an_upstream_among_them() {
        let zone = Zone::default();
        zone.set("a:1", &[1]);
        zone.set("own:1", &[80]);
        // Nothing is due meanwhile, so that the thread waits whenever it can.
        let config = |names: &[&str]| Config { resolve_interval: 3600 * 1000 * MS, ..config(names) };
        let directory = begin_with(config(&["a:1"]), zone.resolver(), PATIENCE);
        directory.listens_on(&["127.0.0.1:80".parse().unwrap()]);
        // It hears the same bell, and is not to silence it for whoever reloads.
        let _resolving = Resolving::start(&directory, || {}).unwrap();
        let reload = |names: &[&str]| {
            let mut is_committed = false;
            let commit = || {
                is_committed = true;
                Ok(())
            };
            let result = directory.reload(&config(names), commit);
            assert_eq!(is_committed, result.is_ok());
            result.map_err(|error| error.to_string())
        };
        for (names, sentence) in [
            (&["no:1", "nor:1"][..], "no upstream can be resolved; give one HOST:PORT at least that can be"),
            (
                &["a:1", "127.0.0.1:80"],
                "the upstream 127.0.0.1:80 is the balancer's own address; give another",
            ),
            (&["own:1", "no:1"], "the upstream own:1 is the balancer's own address; give another"),
            (&["a:1", "a:1=3"], "the upstream a:1 is given twice; give each once"),
        ] {
            assert_eq!(reload(names), Err(sentence.into()));
            assert_eq!(ports(&directory.upstreams), [1]);
        }
        zone.set("b:1", &[2, 3]);
        reload(&["127.0.0.1:9=2", "b:1"]).unwrap();
        assert_eq!(ports(&directory.upstreams), [9, 2, 3]);
        // It cannot be resolved now, and is remembered.
        zone.0.lock().clear();
        reload(&["b:1", "no:1"]).unwrap();
        assert_eq!(ports(&directory.upstreams), [2, 3]);
        for name in ["c:1", "d:1", "e:1", "f:1", "g:1", "h:1"] {
            zone.set(name, &[4]);
            reload(&[name]).unwrap();
            assert_eq!(ports(&directory.upstreams), [4]);
        }
    }

    #[test]
    fn what_is_heard_of_a_name_while_others_are_reloaded_in_vain_counts() {
        let (gated, _calls, open) = gated();
        let nothing = Zone::default().resolver();
        let resolver = move |name: &str| if name == "late:1" { gated(name) } else { nothing(name) };
        let directory = begin(&["127.0.0.1:9", "late:1"], Arc::new(resolver), 50 * MS);
        open.send(7).unwrap();
        while directory.answers.list.lock().is_empty() {
            thread::park_timeout(MS);
        }
        assert!(directory.reload(&config(&["no:1"]), || Ok(())).is_err());
        let _resolving = Resolving::start(&directory, || {}).unwrap();
        await_ports(&directory, &[9, 7]);
        drop(open);
    }

    #[test]
    fn the_balancers_own_address_is_left_out_while_it_runs() {
        let zone = Zone::default();
        zone.set("a:1", &[1]);
        let server = Server::builder().bind("127.0.0.1:0");
        let balancer = serve_with(server, config(&["a:1"]), zone.resolver()).unwrap();
        let own = balancer.handle().local_addr().port();
        let directory = balancer.resolving.directory();
        zone.set("a:1", &[2, own]);
        await_ports(directory, &[2]);
        // As long as it listens nowhere else, and another one is not.
        zone.set("a:1", &[3]);
        await_ports(directory, &[3]);
    }
}
