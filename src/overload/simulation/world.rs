//! The gate in a world of its own: workers that share CPUs, or places at upstreams; an acceptor with
//! its backlog, naps and budget, or a line that refuses at once; and a clock that goes when it is told
//! to. It makes things happen and counts them, and does not know what would be right.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    random::Random,
    scene::{Load, Scene},
    timeline::Timeline,
};
use crate::overload::{Gate, Kind, Take, Terms, Verdict, Wait};

#[derive(Clone, Copy)]
struct Request {
    came: f64,
    /// When its client gives up.
    until: f64,
    /// Its client comes again, whatever becomes of it.
    closed: bool,
    kept: bool,
}

struct Job {
    request: Request,
    left_ms: f64,
    began: f64,
}

enum Event {
    /// The next of the random arrivals may come.
    Draw,
    Come(Request),
    Wake,
}

/// CPU time of a refusal, in milliseconds, as it was measured.
const REFUSAL: f64 = 0.015;
/// The share of a CPU that refusals may take, as by default.
const SHARE: f64 = 0.015;
const BACKLOG: usize = 1024;
const PATIENCE: Duration = Duration::from_millis(500);

/// A run of a scene.
pub(super) struct World {
    scene: Scene,
    gate: Gate,
    began: Instant,
    now: f64,
    random: Random,
    events: Timeline<Event>,
    backlog: VecDeque<Request>,
    queue: VecDeque<Request>,
    ready: VecDeque<Request>,
    jobs: Vec<Job>,
    kept_next: bool,
    /// CPU time of refusals that is still to be spent.
    owed: f64,
    napping_until: f64,
    holding_until: f64,
    wake_at: f64,
    offered: usize,
    /// When each was answered in time, and after how long.
    pub(super) good: Vec<(f64, f64)>,
    /// When somebody was refused, or turned away by the kernel.
    pub(super) refused: Vec<f64>,
}

impl World {
    pub(super) fn run(scene: Scene) -> Self {
        let began = Instant::now();
        let terms = Terms {
            patience: PATIENCE,
            servers: scene.workers,
            refusal_budget: if scene.balancer { 1.0 } else { SHARE },
            longest: Duration::MAX,
        };
        let mut world = Self {
            scene,
            gate: Gate::new(terms, began),
            began,
            now: 0.0,
            random: Random(1),
            events: Timeline::new(),
            backlog: VecDeque::new(),
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            jobs: Vec::new(),
            kept_next: false,
            owed: 0.0,
            napping_until: 0.0,
            holding_until: 0.0,
            wake_at: 0.0,
            offered: 0,
            good: Vec::new(),
            refused: Vec::new(),
        };
        world.begin();
        while world.now < scene.time_ms {
            world.step();
        }
        world
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.now / 1e3)
    }

    fn begin(&mut self) {
        if self.scene.highest_rate() > 0.0 {
            self.events.add(0.0, Event::Draw);
        }
        let (from, clients) = match self.scene.load {
            Load::Closed(clients) => (0.0, clients),
            Load::Pulse { closed_from, clients, .. } => (closed_from, clients),
            _ => (0.0, 0),
        };
        for _ in 0..clients {
            let come = from + 5.0 * self.random.next();
            let request = self.request(true);
            self.events.add(come, Event::Come(request));
        }
    }

    fn request(&mut self, closed: bool) -> Request {
        let kept = self.random.next() < self.scene.kept;
        let until = if closed { f64::INFINITY } else { self.now + self.scene.patience_ms };
        Request { came: self.now, until, closed, kept }
    }

    /// To the next event or the next request that is done.
    fn step(&mut self) {
        let each = match self.scene.cpus {
            Some(cpus) => {
                ((cpus - f64::from(self.owed > 0.0)) / self.jobs.len().max(1) as f64).clamp(0.0, 1.0)
            }
            None => 1.0,
        };
        let done = self.jobs.iter().map(|job| self.now + job.left_ms / each);
        let paid = (self.owed > 0.0).then_some(self.now + self.owed);
        let event = self.events.next();
        let next = done.chain(paid).chain(event).fold(self.scene.time_ms, f64::min).max(self.now);
        let passed = next - self.now;
        self.jobs.iter_mut().for_each(|job| job.left_ms -= passed * each);
        // What is left of rounding would never pass.
        self.owed = Some(self.owed - passed).filter(|owed| *owed > 1e-9).unwrap_or(0.0);
        self.now = next;
        if event.is_some_and(|at| at <= next)
            && let Some(event) = self.events.take()
        {
            self.happen(event);
        }
        self.finish();
        self.accept();
        self.take();
        self.accept();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Draw => {
                let highest = self.scene.highest_rate();
                if self.random.next() * highest < self.scene.rate(self.now) {
                    let request = self.request(false);
                    self.offered += usize::from(self.now >= self.scene.skip_ms);
                    self.come(request);
                }
                let next = self.now + self.random.exponential(1.0 / highest);
                self.events.add(next, Event::Draw);
            }
            Event::Come(request) => self.come(Request { came: self.now, ..request }),
            Event::Wake => {}
        }
    }

    fn come(&mut self, request: Request) {
        let most = self.gate.short_backlog(self.instant(), true).map_or(BACKLOG, |short| short as usize);
        if request.kept {
            self.ready.push_back(request);
        } else if self.scene.balancer || self.backlog.len() <= most {
            self.backlog.push_back(request);
        } else {
            // It tries again when the first retransmission of its SYN is due.
            self.turned_away(request, 1000.0);
        }
    }

    fn turned_away(&mut self, request: Request, again_ms: f64) {
        self.refused.push(self.now);
        if request.closed {
            self.events.add(self.now + again_ms, Event::Come(Request { kept: false, ..request }));
        }
    }

    fn refuse(&mut self, request: Request) {
        if !self.scene.balancer {
            self.owed += REFUSAL;
            self.gate.charge(Duration::from_secs_f64(REFUSAL / 1e3));
        }
        self.turned_away(request, 0.1);
    }

    fn accept(&mut self) {
        if self.scene.balancer {
            let now = self.now;
            self.queue.retain(|request| now <= request.until);
        }
        let held = self.now < self.holding_until && !self.gate.has_room(self.instant(), self.queue.len());
        if self.now < self.napping_until || held {
            return;
        }
        self.holding_until = 0.0;
        while let Some(&request) = self.backlog.front() {
            if self.gate.fits(self.instant(), self.queue.len()) {
                self.gate.admitted(self.instant(), self.queue.len());
                self.queue.push_back(request);
            } else {
                match self.gate.turn_away(self.instant()) {
                    Verdict::Refuse => self.refuse(request),
                    Verdict::Hold(until) => {
                        let until = until.expect("there is a budget") - self.began;
                        self.holding_until = until.as_secs_f64() * 1e3;
                        return self.wake(self.holding_until);
                    }
                }
            }
            self.backlog.pop_front();
        }
        if let Some(nap) = self.gate.nap(self.instant()).filter(|_| !self.scene.balancer) {
            self.napping_until = self.now + nap.as_secs_f64() * 1e3;
            self.wake(self.napping_until);
        }
    }

    /// Wakes the acceptor, once for all that it waits for.
    fn wake(&mut self, at: f64) {
        if self.wake_at <= self.now || self.wake_at > at {
            self.wake_at = at;
            self.events.add(at, Event::Wake);
        }
    }

    /// Who came first goes first; in an overload newcomers and kept requests take turns.
    fn next(&mut self) -> Option<(Request, Kind)> {
        let kept = match (self.queue.front(), self.ready.front()) {
            (Some(_), Some(_)) if self.gate.is_tight() => self.kept_next,
            (Some(queued), Some(ready)) => ready.came < queued.came,
            (queued, _) => queued.is_none(),
        };
        self.kept_next = !kept;
        match kept {
            true => Some((self.ready.pop_front()?, Kind::Kept)),
            false => Some((self.queue.pop_front()?, Kind::Newcomer)),
        }
    }

    fn take(&mut self) {
        while self.jobs.len() < self.scene.workers {
            let Some((request, kind)) = self.next() else {
                return self.gate.idle(self.instant());
            };
            let (now, wait) = (self.instant(), Duration::from_secs_f64((self.now - request.came) / 1e3));
            let mut take = self.gate.take(kind, Wait::AtMost(wait), now, self.queue.len());
            if take == Take::Ask && self.now > request.until {
                self.gate.gone(now, wait);
                continue;
            }
            if take == Take::Ask {
                take = self.gate.take(kind, Wait::Known(wait), now, self.queue.len());
            }
            if take == Take::Shed {
                self.refuse(request);
                continue;
            }
            self.jobs.push(Job { request, left_ms: self.scene.service_ms, began: self.now });
        }
    }

    fn finish(&mut self) {
        let (done, left) = std::mem::take(&mut self.jobs).into_iter().partition(|job| job.left_ms < 1e-6);
        self.jobs = left;
        for Job { request, began, .. } in done {
            self.gate.answered(Duration::from_secs_f64((self.now - began) / 1e3));
            self.gate.turn(self.instant(), !self.queue.is_empty());
            if self.now <= request.until {
                self.good.push((self.now, self.now - request.came));
            }
            if request.closed {
                let again = self.request(true);
                self.events.add(self.now + 0.02, Event::Come(again));
            }
        }
    }

    /// What was answered in time, as a share of what could be had.
    pub(super) fn share(&self) -> f64 {
        let possible = self.scene.capacity() * (self.scene.time_ms - self.scene.skip_ms);
        let good = self.good.iter().filter(|(at, _)| *at >= self.scene.skip_ms).count();
        good as f64 / possible.min(self.offered as f64)
    }

    /// The 99th percentile of how long the good ones took, in milliseconds.
    pub(super) fn p99(&self) -> f64 {
        let good = self.good.iter().filter(|(at, _)| *at >= self.scene.skip_ms);
        let mut took: Vec<_> = good.map(|(_, took)| *took).collect();
        took.sort_by(f64::total_cmp);
        took[took.len() * 99 / 100]
    }

    pub(super) fn refused_after(&self, ms: f64) -> usize {
        self.refused.iter().filter(|at| **at >= ms).count()
    }
}
