//! All upstreams and the line before them. The lock is here: records, places and the line are changed under
//! it, together. It knows neither what a connection is for nor how it is made.

mod lease;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

pub(super) use self::lease::Lease;
use super::{
    config::Config,
    line,
    member::{Member, Wanted},
    places::{Change, Places},
    record::Record,
    refusals::{self, Refusals},
    status::Snapshot,
    tried::Tried,
    upstream::Upstream,
};
use crate::{
    metrics::Times,
    overload::{Gate, Kind, Source, Take, Terms, Wait},
    session::connection::Connection,
    sys::{setting::LiveTime, wait::Bell},
};

type Line = line::Line<Lease>;
/// One that waits in line for a place at an upstream.
pub(super) type Waiter = line::Waiter<Lease>;
pub(super) type Turn = line::Turn<Lease>;

/// All upstreams and the line before them.
#[derive(Debug)]
pub(super) struct Upstreams {
    patience: LiveTime,
    /// Who may wait in line, and for how long.
    gate: Gate,
    /// Rings when an upstream has come or has gone down, and is to be checked soon.
    pub(super) to_check: Bell,
    /// How long those waited who came for the first time, and how long requests had a place.
    waits: Times,
    services: Times,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: Places,
    line: Line,
    refusals: Refusals,
    /// When it was last said that this side is short of something.
    lack_reported: Option<Instant>,
}

/// How somebody leaves the line before its turn has come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// Its client has gone, which had sent something or not.
    Gone {
        had_asked: bool,
    },
    Otherwise,
}

/// What was found for a connection.
#[derive(Debug)]
pub(super) enum Place {
    /// A place at this upstream, which is held from now on.
    At(Lease),
    /// A place in the line.
    InLine(Arc<Waiter>),
    /// None, or none in time.
    Nowhere,
}

/// A place in line, which is left when this is dropped.
#[derive(Debug)]
pub(super) struct InLine {
    upstreams: Arc<Upstreams>,
    pub(super) waiter: Arc<Waiter>,
}

impl InLine {
    pub(super) fn new(upstreams: &Arc<Upstreams>, waiter: Arc<Waiter>) -> Self {
        Self { upstreams: Arc::clone(upstreams), waiter }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.upstreams.leave(&self.waiter, Left::Otherwise);
    }
}

/// A connection may last for as long as it likes, and it is not to be waited for ten times over.
const LONGEST: Duration = Duration::from_secs(5);
/// Who waits here costs nothing more, so that there is no need to leave anybody waiting.
const REFUSAL_BUDGET: f64 = 1.0;

/// The source of a connection, which is known even of a client that has gone; should it not be, it is one with others.
pub(super) fn source_of(connection: &Connection<'_>) -> Source {
    connection.peer_addr().map_or(Source::UNKNOWN, Source::from)
}

impl Upstreams {
    /// Without any upstream, so far.
    pub(super) fn new(config: &Config, patience: Duration) -> rustix::io::Result<Arc<Self>> {
        let places = Places::new(config);
        // A request's own time is not its wait in the upstream, which would make the line longer.
        let longest = if config.http.is_some() { Duration::ZERO } else { LONGEST };
        let terms = Terms { patience, servers: 1, refusal_budget: REFUSAL_BUDGET, longest };
        let shared = Shared { places, line: Line::new(), refusals: Refusals::default(), lack_reported: None };
        Ok(Arc::new(Self {
            patience: LiveTime::new(patience),
            gate: Gate::new(terms, Instant::now()),
            to_check: Bell::new()?,
            waits: Times::new(1),
            services: Times::new(1),
            shared: Mutex::new(shared),
        }))
    }

    /// Has clients wait for so long from now on.
    pub(super) fn set_patience(&self, patience: Duration) {
        self.patience.set(patience);
        self.gate.change(patience, REFUSAL_BUDGET, Instant::now());
    }

    /// Has these upstreams from now on, each of them once, and goes by these settings. One that leaves gets
    /// nothing more, and what is under way there goes on.
    pub(super) fn set(self: &Arc<Self>, wanted: &[Wanted], config: &Config) -> Change {
        let mut shared = self.shared.lock();
        let change = shared.places.set(wanted, config, Instant::now());
        self.gate.set_servers(shared.places.count());
        self.serve_line(shared);
        change.came.iter().for_each(|upstream| upstream.spares.reopen());
        change.left.iter().for_each(|upstream| upstream.spares.close());
        self.to_check.ring();
        change
    }

    /// A place for a connection that came at this time and was at those upstreams that it `tried`.
    pub(super) fn place(
        self: &Arc<Self>,
        came: Instant,
        tried: &Tried,
        source: Source,
        connection: &mut Connection<'_>,
    ) -> Place {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        let is_late = now >= came + self.gate.too_late();
        // Whoever of those in line could have it has it already. One that was elsewhere in vain for so
        // long is not sent from one to another for ever.
        if !(is_late && tried.is_any())
            && let Some(lease) = self.lease(&mut shared, tried, now)
        {
            self.waited(came, tried, now);
            return Place::At(lease);
        }
        let waiting = shared.line.len();
        let fits = self.gate.fits(now, waiting);
        // Who has few in line does not suffer from others' many.
        let may_wait = !is_late && (fits || shared.line.would_give_way(source));
        let Some(waker) = may_wait.then(|| connection.waker()).flatten() else {
            if shared.places.may_come(now) {
                // Nobody is left where it is: it has been accepted.
                let _ = self.gate.turn_away(now);
                shared.refusals.line_full += 1;
                self.look_at_limits(&mut shared, now, true);
            } else {
                // All are down, which is no overload.
                shared.refusals.no_upstream += 1;
            }
            drop(shared);
            self.report();
            return Place::Nowhere;
        };
        self.gate.admitted(now, waiting);
        let last = if fits { None } else { shared.line.take_last() };
        let waiter = shared.line.join(came, tried.clone(), source, waker);
        if let Some(last) = last {
            self.gate.refused(now);
            self.shed(&mut shared, &last, now);
            drop(shared);
            last.wake();
            self.report();
        }
        Place::InLine(waiter)
    }

    /// A place that is free at once, for a connection that came at this time and was at those upstreams,
    /// if it is not too late for it.
    pub(super) fn another(self: &Arc<Self>, came: Instant, tried: &Tried) -> Option<Lease> {
        let now = Instant::now();
        if now >= came + self.gate.too_late() {
            return None;
        }
        self.lease(&mut self.shared.lock(), tried, now)
    }

    /// Takes a waiter out of the line.
    pub(super) fn leave(self: &Arc<Self>, waiter: &Waiter, left: Left) {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if shared.line.leave(waiter) {
            if let Left::Gone { had_asked } = left {
                shared.refusals.gone += 1;
                // A check or a scan connects and resets at once: it has not waited for an answer.
                if had_asked {
                    self.gate.gone(now, now - waiter.came);
                }
            }
            self.serve_line(shared);
        }
    }

    /// Looks again whether there is a place for a waiter, of which some time has passed; until when it
    /// is to wait, if it still is to.
    pub(super) fn look_again(self: &Arc<Self>, waiter: &Waiter) -> Option<Instant> {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if now >= waiter.came + self.gate.too_late() {
            if shared.line.leave(waiter) {
                if shared.places.may_come(now) {
                    self.gate.refused(now);
                    self.shed(&mut shared, waiter, now);
                } else {
                    // All are down, which is no overload.
                    shared.refusals.no_upstream += 1;
                    waiter.give(Turn::Shed);
                }
            }
            self.serve_line(shared);
            self.report();
            return None;
        }
        self.serve_line(shared);
        Some(self.waits_until(waiter))
    }

    /// Until when a waiter is to wait before it is looked at again.
    pub(super) fn waits_until(&self, waiter: &Waiter) -> Instant {
        let late = waiter.came + self.gate.too_late();
        waiter.tried.next_forgotten(Instant::now()).map_or(late, |forgotten| forgotten.min(late))
    }

    /// Tells one that has been taken out of the line that it waited in vain, without having it run.
    fn shed(&self, shared: &mut Shared, waiter: &Waiter, now: Instant) {
        shared.refusals.shed += 1;
        self.waited(waiter.came, &waiter.tried, now);
        waiter.give(Turn::Shed);
    }

    /// Takes note of a wait. One that was elsewhere before is not counted twice.
    fn waited(&self, came: Instant, tried: &Tried, now: Instant) {
        if !tried.is_any() {
            self.waits.record(0, now.saturating_duration_since(came), 1);
        }
    }

    fn lease(self: &Arc<Self>, shared: &mut Shared, tried: &Tried, now: Instant) -> Option<Lease> {
        let upstream = shared.places.take(tried, now)?;
        self.look_at_limits(shared, now, false);
        Some(Lease::new(self, upstream, now))
    }

    /// Lets the limits know how many places are taken, and draws the conclusions. `refused`: somebody was,
    /// since there was no place.
    fn look_at_limits(&self, shared: &mut Shared, now: Instant, refused: bool) {
        if !shared.places.is_limited() {
            return;
        }
        let waiting = refused || !shared.line.is_empty();
        let before = shared.places.count();
        shared.places.records().for_each(|record| record.look_at_limit(now, waiting));
        let count = shared.places.count();
        if count != before {
            self.gate.set_servers(count);
        }
    }

    /// Gives places that are free to those who wait, and wakes them without the lock.
    fn serve_line(self: &Arc<Self>, mut shared: MutexGuard<'_, Shared>) {
        let now = Instant::now();
        let mut woken = Vec::new();
        while let Some(waiter) = next_in_line(&mut shared, now) {
            let wait = now.saturating_duration_since(waiter.came);
            if self.gate.take(Kind::Newcomer, Wait::Known(wait), now, shared.line.len()) == Take::Shed {
                self.shed(&mut shared, &waiter, now);
            } else if let Some(lease) = self.lease(&mut shared, &waiter.tried, now) {
                self.waited(waiter.came, &waiter.tried, now);
                waiter.give(Turn::Place(lease));
            }
            woken.push(waiter);
        }
        if shared.line.is_empty() {
            self.gate.no_line();
            if shared.places.has_any(now) {
                self.gate.idle(now);
            }
        }
        drop(shared);
        woken.iter().for_each(|waiter| waiter.wake());
    }

    /// Says when an overload of the upstreams begins, and when it is over.
    pub(super) fn report(&self) {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if !self.gate.is_overloaded(now) && !shared.refusals.is_watching() {
            return;
        }
        self.gate.look(now);
        let change = shared.refusals.look(now, self.gate.is_overloaded(now));
        drop(shared);
        change.iter().for_each(refusals::tell);
    }

    /// Takes note of a check.
    pub(super) fn checked(self: &Arc<Self>, upstream: &Upstream, result: Result<(), &str>) {
        let mut shared = self.shared.lock();
        let before = shared.places.count();
        let has_turned = shared.places.checked(upstream.id, result.is_ok(), Instant::now());
        if has_turned {
            self.turned(shared, upstream, result);
        } else if shared.places.count() != before {
            // It was reached for the first time.
            self.gate.set_servers(shared.places.count());
            self.serve_line(shared);
        }
    }

    /// Draws the conclusions of a change of an upstream's state, for this reason.
    fn turned(
        self: &Arc<Self>,
        shared: MutexGuard<'_, Shared>,
        upstream: &Upstream,
        result: Result<(), &str>,
    ) {
        self.gate.set_servers(shared.places.count());
        let is_missed = shared.places.member(upstream.id).is_some_and(Member::is_used);
        // When the last one is down, they may be tried in spite of it.
        self.serve_line(shared);
        let Upstream { name, addr, .. } = upstream;
        match result {
            _ if !is_missed => {}
            Ok(()) => tracing::info!(upstream = name, %addr, "up again"),
            Err(cause) => {
                self.to_check.ring();
                tracing::warn!(upstream = name, %addr, cause, "down");
            }
        }
    }

    /// All of them that are wanted.
    pub(super) fn all(&self) -> Vec<Arc<Upstream>> {
        self.those(|_| true)
    }

    /// Takes note of a check that this side could not make; whether that is worth telling.
    pub(super) fn check_lacked(&self, upstream: &Upstream) -> bool {
        let mut shared = self.shared.lock();
        shared.places.record(upstream.id).into_iter().for_each(Record::check_lacked);
        shared.places.member(upstream.id).is_some_and(Member::is_used)
    }

    /// Those that are to be checked before their turn.
    pub(super) fn urgent(&self, lately: Duration) -> Vec<Arc<Upstream>> {
        let now = Instant::now();
        self.those(|member| member.is_urgent(lately, now))
    }

    fn those(&self, are_meant: impl Fn(&Member) -> bool) -> Vec<Arc<Upstream>> {
        let shared = self.shared.lock();
        let meant = shared.places.wanted().filter(|member| are_meant(member));
        meant.map(|member| Arc::clone(&member.upstream)).collect()
    }

    /// Closes connections to upstreams that nobody has used for long.
    pub(super) fn tidy(&self, now: Instant) {
        self.all().iter().for_each(|upstream| upstream.spares.tidy(now));
    }

    /// How many of them are used.
    pub(super) fn up(&self) -> usize {
        self.shared.lock().places.wanted().filter(|member| !member.is_out()).count()
    }

    /// A line for each upstream, and what is so for all of them.
    pub(super) fn snapshot(&self) -> Snapshot {
        // Each adds up thousands of cells, for which no request is to wait.
        let (wait, service) = (self.waits.distribution(), self.services.distribution());
        let shared = self.shared.lock();
        let members = shared.places.in_order().into_iter();
        Snapshot {
            upstreams: members
                .map(|member| member.record.status(&member.upstream, member.is_used()))
                .collect(),
            waiting: shared.line.len(),
            wait,
            service,
            refused_no_upstream: shared.refusals.no_upstream,
            refused_line_full: shared.refusals.line_full,
            line_shed: shared.refusals.shed,
            line_gone: shared.refusals.gone,
            overloads_begun: shared.refusals.overloads_begun,
            overloads_ended: shared.refusals.overloads_ended,
            access_log_dropped: 0,
        }
    }
}

/// The first in line for whom there is a place.
fn next_in_line(shared: &mut Shared, now: Instant) -> Option<Arc<Waiter>> {
    if shared.line.is_empty() {
        return None;
    }
    let free = shared.places.free(now);
    if free.is_empty() {
        return None;
    }
    shared.line.take_first(|waiter| free.iter().any(|&number| !waiter.tried.contains(number, now)))
}
