//! The policy against scripted arrivals: workers on one CPU, an acceptor that does as it is told, a
//! backlog, and a clock that goes when it is told to. Goodput is what was finished within 500 ms.

use std::collections::VecDeque;

use super::*;

const TICK: Duration = Duration::from_micros(50);
const DEADLINE: Duration = Duration::from_millis(500);
const BACKLOG: usize = 1024;
/// CPU time of a refusal.
const REFUSAL_US: f64 = 12.0;
const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// What requests do while a worker has them.
#[derive(Clone, Copy)]
enum Work {
    Cpu(Duration),
    Block(Duration),
}

struct Job {
    arrived: Duration,
    began: Duration,
    left_us: f64,
}

/// When a request came and what became of it.
struct Fate {
    arrived: Duration,
    /// None if it was refused.
    finished: Option<Duration>,
}

struct World {
    began: Instant,
    now: Duration,
    work: Work,
    /// Who waits too long is shed.
    sheds: bool,
    admission: Admission,
    budget: Budget,
    pace: Pace,
    line: Line,
    queue: VecDeque<Duration>,
    backlog: VecDeque<Duration>,
    workers: Vec<Option<Job>>,
    /// CPU time that refusals have taken and that is still to be taken off the workers'.
    owed_us: f64,
    napping_until: Duration,
    turned_away_by_kernel: usize,
    fates: Vec<Fate>,
}

impl World {
    fn new(workers: usize, work: Work) -> Self {
        let began = Instant::now();
        Self {
            began,
            now: Duration::ZERO,
            work,
            sheds: true,
            admission: Admission::new(OnFull::Refuse, workers * 16, workers, Some(5 * MS), began),
            budget: Budget::new(0.03, began),
            pace: Pace::new(),
            line: Line::new(),
            queue: VecDeque::new(),
            backlog: VecDeque::new(),
            workers: (0..workers).map(|_| None).collect(),
            owed_us: 0.0,
            napping_until: Duration::ZERO,
            turned_away_by_kernel: 0,
            fates: Vec::new(),
        }
    }

    /// Lets so much time pass, with so many newcomers per second at each moment.
    fn run(&mut self, time: Duration, per_s: impl Fn(Duration) -> f64) {
        let from = self.now;
        let mut due = 0.0;
        while self.now < from + time {
            due += per_s(self.now - from) * TICK.as_secs_f64();
            while due >= 1.0 {
                due -= 1.0;
                self.arrive();
            }
            self.accept();
            self.take();
            self.spend();
            self.now += TICK;
        }
    }

    fn arrive(&mut self) {
        let short = self.admission.short_backlog(true, &self.pace);
        if self.backlog.len() > short.map_or(BACKLOG, |short| short as usize) {
            self.turned_away_by_kernel += 1;
        } else {
            self.backlog.push_back(self.now);
        }
    }

    fn accept(&mut self) {
        if self.now < self.napping_until {
            return;
        }
        let now = self.began + self.now;
        if self.backlog.len() > self.admission.short_backlog(true, &self.pace).unwrap_or(u32::MAX) as usize {
            self.admission.pressed(now);
        }
        while let Some(&arrived) = self.backlog.front() {
            let target = Target::new(5 * MS, &self.pace);
            let full = self.queue.len() >= self.admission.limit(&self.pace);
            let waiting = self.queue.len() + self.backlog.len();
            let stands =
                self.line.stands(self.now, target) || (full && self.admission.is_flood(waiting, &self.pace));
            match self.admission.decide(now, full, stands, &mut self.budget) {
                Verdict::Admit => {
                    self.admission.admitted();
                    self.queue.push_back(arrived);
                }
                Verdict::Refuse | Verdict::Replace => self.refuse(arrived),
                Verdict::Wait(_) => return,
            }
            self.backlog.pop_front();
        }
        self.admission.caught_up(now);
        self.napping_until = self.now + self.admission.nap().unwrap_or_default();
    }

    fn refuse(&mut self, arrived: Duration) {
        self.owed_us += REFUSAL_US;
        self.budget.charge(Duration::from_nanos((REFUSAL_US * 1e3) as u64));
        self.fates.push(Fate { arrived, finished: None });
    }

    /// Gives those who wait in the queue to idle workers, but for those that are shed.
    fn take(&mut self) {
        for index in 0..self.workers.len() {
            while self.workers[index].is_none() {
                let Some(arrived) = self.queue.pop_front() else {
                    self.line.is_calm();
                    break;
                };
                let target = Target::new(5 * MS, &self.pace);
                let wait = self.now - arrived;
                self.line.waited(self.now, wait, target);
                let stands = self.admission.is_tight() || self.line.stands(self.now, target);
                if self.sheds && stands && target.is_stale(wait) {
                    self.refuse(arrived);
                    continue;
                }
                let (Work::Cpu(time) | Work::Block(time)) = self.work;
                let left_us = time.as_secs_f64() * 1e6;
                self.workers[index] = Some(Job { arrived, began: self.now, left_us });
            }
        }
        assert!(self.queue.is_empty() || self.workers.iter().all(Option::is_some), "a worker is idle");
    }

    /// Gives a tick of the CPU to refusals and then to the workers.
    fn spend(&mut self) {
        let tick_us = TICK.as_secs_f64() * 1e6;
        let refusing_us = self.owed_us.min(tick_us);
        self.owed_us -= refusing_us;
        let busy = self.workers.iter().flatten().count();
        let each_us = match self.work {
            Work::Cpu(_) => (tick_us - refusing_us) / busy.max(1) as f64,
            Work::Block(_) => tick_us,
        };
        for worker in &mut self.workers {
            if let Some(job) = worker.as_mut() {
                job.left_us -= each_us;
                if job.left_us <= 0.0 {
                    self.pace.took(self.now - job.began);
                    self.fates.push(Fate { arrived: job.arrived, finished: Some(self.now) });
                    *worker = None;
                }
            }
        }
    }

    /// Good replies per second and the 99th percentile of their waits, of those finished since.
    fn goodput(&self, since: Duration) -> (f64, Duration) {
        let times = self.fates.iter().filter_map(|fate| Some((fate.finished?, fate.arrived)));
        let mut good: Vec<_> = times
            .filter(|&(at, _)| at >= since)
            .map(|(at, from)| at - from)
            .filter(|&t| t <= DEADLINE)
            .collect();
        good.sort_unstable();
        let p99 = good.get(good.len() * 99 / 100).copied().unwrap_or_default();
        (good.len() as f64 / (self.now - since).as_secs_f64(), p99)
    }

    fn refused(&self) -> usize {
        self.fates.iter().filter(|fate| fate.finished.is_none()).count() + self.turned_away_by_kernel
    }
}

#[test]
fn a_step_to_ten_or_fifty_times_the_load_keeps_the_goodput() {
    for (times, kept) in [(2.0, 0.97), (10.0, 0.95), (50.0, 0.95)] {
        let mut world = World::new(2, Work::Cpu(MS));
        world.run(S, |_| 500.0);
        assert_eq!(world.refused(), 0);
        world.run(5 * S, |_| 1000.0 * times);
        let (goodput, p99) = world.goodput(2 * S);
        assert!(goodput >= 1000.0 * kept, "{times}: {goodput}");
        assert!(p99 <= 25 * MS, "{times}: {p99:?}");
    }
}

#[test]
fn with_an_endless_line_nobody_would_be_in_time() {
    // The same load without all this, so that the others can be seen to fail.
    let mut world = World::new(2, Work::Cpu(MS));
    world.admission = Admission::new(OnFull::Wait, 1_000_000, 2, None, world.began);
    world.sheds = false;
    world.run(S, |_| 500.0);
    world.run(5 * S, |_| 2000.0);
    let (goodput, _) = world.goodput(3 * S);
    assert!(goodput < 100.0, "{goodput}");
}

#[test]
fn after_an_overload_newcomers_meet_what_they_met_before() {
    let mut world = World::new(2, Work::Cpu(MS));
    world.run(S, |_| 500.0);
    world.run(3 * S, |_| 10_000.0);
    world.run(2 * S, |_| 500.0);
    let late = world.fates.iter().filter(|fate| fate.arrived >= 4 * S + 200 * MS);
    for Fate { arrived, finished } in late {
        let time = finished.map(|finished| finished - *arrived);
        assert!(time.is_some_and(|time| time <= 4 * MS), "{time:?} at {arrived:?}");
    }
}

#[test]
fn bursts_are_served() {
    // As long as that takes no longer than the line may stand, 100 ms.
    for (burst, work) in [(90, MS), (300, MS / 4), (900, MS / 10)] {
        let mut world = World::new(2, Work::Cpu(work));
        for _ in 0..5 {
            (0..burst).for_each(|_| world.arrive());
            world.run(S, |_| 100.0);
        }
        assert_eq!(world.refused(), 0, "{burst}");
    }
}

#[test]
fn a_ramp_is_refused_only_above_the_capacity() {
    let mut world = World::new(2, Work::Cpu(MS));
    world.run(9 * S, |t| 100.0 * t.as_secs_f64());
    assert_eq!(world.refused(), 0);
    world.run(9 * S, |t| 900.0 + 1000.0 * t.as_secs_f64());
    let (goodput, p99) = world.goodput(15 * S);
    assert!(goodput >= 950.0, "{goodput}");
    assert!(p99 <= 25 * MS, "{p99:?}");
}

#[test]
fn slow_handlers_keep_their_goodput_too() {
    let mut world = World::new(16, Work::Block(20 * MS));
    world.run(S, |_| 400.0);
    assert_eq!(world.refused(), 0);
    world.run(5 * S, |_| 8000.0);
    let (goodput, p99) = world.goodput(2 * S);
    assert!(goodput >= 760.0, "{goodput}");
    assert!(p99 <= 100 * MS, "{p99:?}");
    // A burst at a handler that takes a second waits, and is served.
    let mut slow = World::new(2, Work::Block(S));
    (0..30).for_each(|_| slow.arrive());
    slow.run(20 * S, |_| 0.0);
    assert_eq!(slow.fates.iter().filter(|fate| fate.finished.is_some()).count(), 30);
}
