//! The gate against scripted arrivals: workers that share CPUs, or places at upstreams; an acceptor
//! with its backlog, naps and budget, or a line that refuses at once; and a clock that goes when it is
//! told to. It judges the policy without a single socket.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use super::*;

/// What requests come.
#[derive(Clone, Copy)]
enum Load {
    /// At random moments, so many times what can be served.
    Poisson(f64),
    /// The same, with bursts: so many times for so many milliseconds of each period.
    Bursts { times: f64, on: f64, period: f64, mean: f64 },
    /// From half of what can be served to this and back, between these milliseconds.
    Step { times: f64, from: f64, to: f64 },
    /// So many clients, each of which comes again at once.
    Closed(usize),
    /// So many such clients from this millisecond on, and ten times what can be served from one to
    /// another.
    Pulse { closed_from: f64, clients: usize, from: f64, to: f64 },
}

#[derive(Clone, Copy)]
struct Scene {
    load: Load,
    workers: usize,
    /// CPUs that the workers share; none where requests block.
    cpus: Option<f64>,
    service_ms: f64,
    /// How long clients wait. When they give up, it can be seen.
    patience_ms: f64,
    /// The share of the requests that come over kept connections.
    kept: f64,
    /// There is no acceptor: who is refused hears it at once, and who has gone leaves the line.
    balancer: bool,
    time_ms: f64,
    /// What happens before is not counted.
    skip_ms: f64,
}

impl Scene {
    fn new(load: Load) -> Self {
        Self {
            load,
            workers: 2,
            cpus: Some(1.0),
            service_ms: 1.0,
            patience_ms: 500.0,
            kept: 0.0,
            balancer: false,
            time_ms: 13_000.0,
            skip_ms: 3_000.0,
        }
    }

    /// Requests that can be served in a millisecond.
    fn capacity(&self) -> f64 {
        self.cpus.unwrap_or(self.workers as f64) / self.service_ms
    }

    /// How many come in a millisecond, beside closed loops.
    fn rate(&self, at: f64) -> f64 {
        self.capacity()
            * match self.load {
                Load::Poisson(times) => times,
                Load::Bursts { times, on, period, .. } if at % period < on => times,
                Load::Bursts { times, on, period, mean } => (mean * period - times * on) / (period - on),
                Load::Step { times, from, to } => {
                    if at >= from && at < to {
                        times
                    } else {
                        0.5
                    }
                }
                Load::Pulse { from, to, .. } if at >= from && at < to => 10.0,
                Load::Closed(_) | Load::Pulse { .. } => 0.0,
            }
    }

    fn highest_rate(&self) -> f64 {
        let times: f64 = match self.load {
            Load::Poisson(times) | Load::Bursts { times, .. } | Load::Step { times, .. } => times,
            Load::Pulse { .. } => 10.0,
            Load::Closed(_) => 0.0,
        };
        self.capacity() * times.max(1.0)
    }
}

/// SplitMix64: the same numbers each time.
struct Random(u64);

impl Random {
    /// Between 0 and 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.next()).ln()
    }
}

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

/// Milliseconds since the beginning, with a number that keeps the order of what is at the same time.
struct At(u64, u64, Event);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// CPU time of a refusal, in milliseconds, as it was measured.
const REFUSAL: f64 = 0.015;
/// The share of a CPU that refusals may take, as by default.
const SHARE: f64 = 0.015;
const BACKLOG: usize = 1024;
const PATIENCE: Duration = Duration::from_millis(500);

struct World {
    scene: Scene,
    gate: Gate,
    began: Instant,
    now: f64,
    random: Random,
    events: BinaryHeap<Reverse<At>>,
    events_made: u64,
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
    good: Vec<(f64, f64)>,
    /// When somebody was refused, or turned away by the kernel.
    refused: Vec<f64>,
}

impl World {
    fn run(scene: Scene) -> Self {
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
            events: BinaryHeap::new(),
            events_made: 0,
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

    fn at(&mut self, ms: f64, event: Event) {
        self.events_made += 1;
        self.events.push(Reverse(At((ms * 1e6) as u64, self.events_made, event)));
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.now / 1e3)
    }

    fn begin(&mut self) {
        if self.scene.highest_rate() > 0.0 {
            self.at(0.0, Event::Draw);
        }
        let (from, clients) = match self.scene.load {
            Load::Closed(clients) => (0.0, clients),
            Load::Pulse { closed_from, clients, .. } => (closed_from, clients),
            _ => (0.0, 0),
        };
        for _ in 0..clients {
            let come = from + 5.0 * self.random.next();
            let request = self.request(true);
            self.at(come, Event::Come(request));
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
        let event = self.events.peek().map(|Reverse(At(ns, ..))| *ns as f64 / 1e6);
        let next = done.chain(paid).chain(event).fold(self.scene.time_ms, f64::min).max(self.now);
        let passed = next - self.now;
        self.jobs.iter_mut().for_each(|job| job.left_ms -= passed * each);
        // What is left of rounding would never pass.
        self.owed = Some(self.owed - passed).filter(|owed| *owed > 1e-9).unwrap_or(0.0);
        self.now = next;
        if event.is_some_and(|at| at <= next)
            && let Some(Reverse(At(.., event))) = self.events.pop()
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
                self.at(next, Event::Draw);
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
            self.at(self.now + again_ms, Event::Come(Request { kept: false, ..request }));
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
            self.at(at, Event::Wake);
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
                self.at(self.now + 0.02, Event::Come(again));
            }
        }
    }

    /// What was answered in time, as a share of what could be had.
    fn share(&self) -> f64 {
        let possible = self.scene.capacity() * (self.scene.time_ms - self.scene.skip_ms);
        let good = self.good.iter().filter(|(at, _)| *at >= self.scene.skip_ms).count();
        good as f64 / possible.min(self.offered as f64)
    }

    /// The 99th percentile of how long the good ones took, in milliseconds.
    fn p99(&self) -> f64 {
        let good = self.good.iter().filter(|(at, _)| *at >= self.scene.skip_ms);
        let mut took: Vec<_> = good.map(|(_, took)| *took).collect();
        took.sort_by(f64::total_cmp);
        took[took.len() * 99 / 100]
    }

    fn refused_after(&self, ms: f64) -> usize {
        self.refused.iter().filter(|at| **at >= ms).count()
    }
}

#[test]
fn goodput_is_kept_around_and_beyond_the_capacity() {
    let cases = [
        (0.5, 1.0, 10.0),
        (0.95, 0.999, 100.0),
        (1.0, 0.985, 500.0),
        (1.05, 0.985, 500.0),
        // The line is let grow once to see that it is an overload.
        (1.2, 0.98, 500.0),
        (1.5, 0.97, 300.0),
        (2.0, 0.97, 25.0),
        (10.0, 0.97, 25.0),
        (15.0, 0.97, 25.0),
    ];
    for (times, share, p99) in cases {
        let world = World::run(Scene::new(Load::Poisson(times)));
        println!("{times}x: {:.3}, p99 {:.1} ms", world.share(), world.p99());
        assert!(world.share() >= share, "{times}x: {}", world.share());
        assert!(world.p99() <= p99, "{times}x: {}", world.p99());
    }
}

#[test]
fn a_closed_loop_is_never_refused() {
    for clients in [8, 16, 64, 128, 256] {
        for workers in [1, 2, 4] {
            for kept in [0.0, 0.5, 1.0] {
                let world = World::run(Scene { workers, kept, ..Scene::new(Load::Closed(clients)) });
                assert_eq!(world.refused_after(0.0), 0, "{clients} clients, {workers} workers, {kept} kept");
            }
        }
    }
}

#[test]
fn after_an_overload_a_closed_loop_that_retries_at_once_is_not_refused() {
    // It comes during the overload, or was there for long before; requests of 1 ms and of 10 ms.
    for (clients, service_ms) in [(64, 1.0), (128, 1.0), (256, 1.0), (64, 10.0)] {
        for (closed_from, from) in [(3000.0, 0.0), (0.0, 30_000.0)] {
            let to = from + 5000.0;
            let load = Load::Pulse { closed_from, clients, from, to };
            let cpus = if service_ms > 1.0 { None } else { Some(1.0) };
            let time_ms = to + 6000.0;
            let world = World::run(Scene { service_ms, cpus, time_ms, ..Scene::new(load) });
            assert!(world.refused_after(0.0) > 0);
            let last = world.refused.last().map_or(0.0, |at| at - to);
            println!(
                "{clients} clients, {service_ms} ms, since {closed_from}: last refusal after {last:.0} ms"
            );
            assert!(last < 3000.0, "{clients} clients, {service_ms} ms, since {closed_from}: {last}");
        }
    }
}

#[test]
fn bursts_are_served() {
    // Of the last no more than 0.706 can be served in time.
    for (times, on, period, share) in
        [(5.0, 50.0, 1000.0, 1.0), (10.0, 20.0, 1000.0, 1.0), (5.0, 200.0, 2000.0, 0.6)]
    {
        let load = Load::Bursts { times, on, period, mean: 0.7 };
        let world = World::run(Scene { time_ms: 33_000.0, ..Scene::new(load) });
        println!("bursts of {times}x for {on} ms: {:.3}", world.share());
        assert!(world.share() >= share - 0.002, "{times}x for {on} ms: {}", world.share());
        assert!(share < 1.0 || world.refused.is_empty(), "{times}x for {on} ms");
    }
}

#[test]
fn an_overload_is_over_when_it_is_over() {
    for times in [2.0, 10.0] {
        let load = Load::Step { times, from: 3000.0, to: 9000.0 };
        let world = World::run(Scene { skip_ms: 0.0, time_ms: 12_000.0, ..Scene::new(load) });
        assert_eq!(world.refused_after(9100.0), 0, "{times}x");
        // Its onset as well: nobody waits for long any more.
        let later = world.good.iter().filter(|(at, _)| (5000.0..9000.0).contains(at));
        let slow = later.clone().filter(|(_, took)| *took > 25.0).count();
        assert!(slow * 100 <= later.count(), "{times}x: {slow}");
    }
}

#[test]
fn impatient_clients_are_learnt_from() {
    let world = World::run(Scene { patience_ms: 100.0, ..Scene::new(Load::Poisson(2.0)) });
    println!("patience 100 ms: {:.3}", world.share());
    assert!(world.share() >= 0.95, "{}", world.share());
}

#[test]
fn quick_and_slow_handlers_keep_their_goodput_too() {
    let quick = World::run(Scene { service_ms: 0.2, ..Scene::new(Load::Poisson(4.0)) });
    let blocking = Scene { workers: 16, cpus: None, service_ms: 20.0, ..Scene::new(Load::Poisson(10.0)) };
    for (what, world) in
        [("200 us at 4x", quick), ("16 workers block for 20 ms at 10x", World::run(blocking))]
    {
        println!("{what}: {:.3}, p99 {:.1} ms", world.share(), world.p99());
        assert!(world.share() >= 0.95, "{what}: {}", world.share());
    }
}

#[test]
fn a_balancers_line_keeps_its_goodput() {
    for times in [0.9, 1.2, 2.0, 10.0] {
        let scene = Scene {
            workers: 4,
            cpus: None,
            service_ms: 20.0,
            balancer: true,
            ..Scene::new(Load::Poisson(times))
        };
        let world = World::run(scene);
        println!("balancer {times}x: {:.3}, p99 {:.1} ms", world.share(), world.p99());
        assert!(world.share() >= 0.97, "{times}x: {}", world.share());
        assert!(times != 2.0 || world.p99() <= 150.0, "{}", world.p99());
    }
}

#[test]
fn kept_requests_in_overload() {
    // Refusing each of them costs CPU, and no backlog keeps them away.
    for (kept, times, share) in [(0.5, 2.0, 0.97), (1.0, 2.0, 0.97), (0.5, 10.0, 0.9), (1.0, 10.0, 0.85)] {
        let world = World::run(Scene { kept, ..Scene::new(Load::Poisson(times)) });
        println!("{kept} kept at {times}x: {:.3}", world.share());
        assert!(world.share() >= share, "{kept} kept at {times}x: {}", world.share());
    }
}
