//! A proxy before an upstream, with the gate and the limit as they are: requests come, are sent, wait or
//! are refused, and are counted. It does not know what would be right.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    random::Random,
    timeline::Timeline,
    upstream::{Upstream, Work},
};
use crate::overload::{Gate, Kind, Limit, Take, Terms, Wait};

/// What comes.
#[derive(Clone, Copy)]
pub(super) enum Clients {
    /// At random moments, so many in a second.
    Open(f64),
    /// So many, each of which comes again at once.
    Closed(usize),
}

#[derive(Clone, Copy)]
pub(super) struct Scene {
    pub(super) workers: usize,
    pub(super) cores: f64,
    pub(super) work: Work,
    pub(super) clients: Clients,
    pub(super) slow: Slow,
    pub(super) seconds: f64,
    /// What comes before is not counted.
    pub(super) skip: f64,
    pub(super) seed: u64,
}

/// When everything takes four times as long.
#[derive(Clone, Copy)]
pub(super) enum Slow {
    Never,
    From(f64),
    Until(f64),
}

impl Slow {
    /// How many times as long as usual everything takes at this second.
    pub(super) fn at(self, second: f64) -> f64 {
        match self {
            Self::From(from) if second >= from => 4.0,
            Self::Until(until) if second < until => 4.0,
            _ => 1.0,
        }
    }
}

#[derive(Clone, Copy)]
struct Request {
    came: f64,
    sent: f64,
    work: f64,
    closed: bool,
}

enum Event {
    Draw,
    Come,
}

/// How long clients wait.
const PATIENCE_MS: f64 = 500.0;

pub(super) struct Proxy {
    scene: Scene,
    gate: Gate,
    limit: Limit,
    began: Instant,
    now: f64,
    random: Random,
    events: Timeline<Event>,
    line: VecDeque<Request>,
    upstream: Upstream<Request>,
    in_flight: usize,
    /// Since the limit last looked.
    was_refused: bool,
    pub(super) offered: usize,
    /// When each was answered in time that counts, and after how long, in milliseconds.
    pub(super) good: Vec<(f64, f64)>,
    pub(super) refused: usize,
}

impl Proxy {
    pub(super) fn run(scene: Scene, limit: impl Fn(Instant) -> Limit) -> Self {
        let began = Instant::now();
        let limit = limit(began);
        let terms = Terms {
            patience: Duration::from_secs_f64(PATIENCE_MS / 1e3),
            servers: limit.in_force(),
            refusal_budget: 1.0,
            // How long requests take includes how long they wait in the upstream, of which nothing follows.
            longest: Duration::ZERO,
        };
        let mut proxy = Self {
            scene,
            gate: Gate::new(terms, began),
            limit,
            began,
            now: 0.0,
            random: Random(scene.seed),
            events: Timeline::new(),
            line: VecDeque::new(),
            upstream: Upstream::new(scene.workers, scene.cores),
            in_flight: 0,
            was_refused: false,
            offered: 0,
            good: Vec::new(),
            refused: 0,
        };
        match scene.clients {
            Clients::Open(_) => proxy.events.add(0.0, Event::Draw),
            Clients::Closed(clients) => {
                (0..clients).for_each(|n| proxy.events.add(n as f64 * 0.01, Event::Come));
            }
        }
        while proxy.now < scene.seconds * 1e3 {
            proxy.step();
        }
        proxy
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.now / 1e3)
    }

    fn counts(&self, came: f64) -> bool {
        came >= self.scene.skip * 1e3
    }

    /// To the next that comes or is done.
    fn step(&mut self) {
        let (event, done) = (self.events.next(), self.upstream.next());
        let next = event.into_iter().chain(done).fold(f64::INFINITY, f64::min).max(self.now);
        self.upstream.pass(next);
        self.now = next;
        self.upstream.set_slowness(self.scene.slow.at(next / 1e3));
        if done.is_some_and(|at| at <= next) {
            self.done();
        } else {
            match self.events.take() {
                Some(Event::Draw) => {
                    if let Clients::Open(rate) = self.scene.clients {
                        let next = self.now + self.random.exponential(1e3 / rate);
                        self.events.add(next, Event::Draw);
                    }
                    self.come(false);
                }
                Some(Event::Come) => self.come(true),
                None => {}
            }
        }
    }

    fn come(&mut self, closed: bool) {
        let work = self.scene.work.draw(&mut self.random);
        let request = Request { came: self.now, sent: 0.0, work, closed };
        self.offered += usize::from(self.counts(self.now));
        let now = self.instant();
        if self.in_flight < self.limit.in_force() && self.line.is_empty() {
            self.send(request);
        } else if self.gate.fits(now, self.line.len()) {
            self.gate.admitted(now, self.line.len());
            self.line.push_back(request);
        } else {
            let _ = self.gate.turn_away(now);
            self.refuse(request);
        }
    }

    fn refuse(&mut self, request: Request) {
        self.was_refused = true;
        self.refused += usize::from(self.counts(request.came));
        if request.closed {
            self.events.add(self.now + 1.0, Event::Come);
        }
    }

    fn send(&mut self, request: Request) {
        self.in_flight += 1;
        self.upstream.take(request.work, Request { sent: self.now, ..request });
        self.look();
    }

    fn look(&mut self) {
        let waiting = !self.line.is_empty() || std::mem::take(&mut self.was_refused);
        self.limit.look(self.instant(), self.in_flight, waiting);
        self.gate.set_servers(self.limit.in_force());
    }

    fn done(&mut self) {
        let Some(request) = self.upstream.done() else { return };
        self.in_flight -= 1;
        let now = self.instant();
        let took = Duration::from_secs_f64((self.now - request.sent) / 1e3);
        self.gate.answered(took);
        self.gate.turn(now, !self.line.is_empty());
        self.limit.done(now, took);
        self.look();
        let waited = self.now - request.came;
        if waited <= PATIENCE_MS && self.counts(request.came) {
            self.good.push((self.now, waited));
        }
        if request.closed {
            self.events.add(self.now + 0.02, Event::Come);
        }
        self.serve_line();
    }

    fn serve_line(&mut self) {
        let now = self.instant();
        while self.in_flight < self.limit.in_force() {
            let Some(request) = self.line.pop_front() else { break };
            let wait = Duration::from_secs_f64((self.now - request.came) / 1e3);
            if self.now - request.came > PATIENCE_MS {
                self.gate.gone(now, wait);
                if request.closed {
                    self.events.add(self.now + 0.02, Event::Come);
                }
            } else if self.gate.take(Kind::Newcomer, Wait::Known(wait), now, self.line.len()) == Take::Shed {
                self.refuse(request);
            } else {
                self.send(request);
            }
        }
        if self.line.is_empty() {
            self.gate.no_line();
            if self.in_flight < self.limit.in_force() {
                self.gate.idle(now);
            }
        }
    }
}
