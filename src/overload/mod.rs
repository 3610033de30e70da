//! Whom to refuse, and when: policy alone. Time is an argument, nothing waits, and it knows no
//! sockets, no threads and no handler.
//!
//! Only those are refused who could not be served in time. One number says what that is: the
//! *patience*, how long clients wait. What follows from it, for every line in which requests wait
//! (newcomers, kept connections whose request has come, connections that wait for an upstream), is
//! decided by one [`Gate`] for each place that is short of workers:
//!
//! - While everybody can be served within the *tolerance*, four fifths of the patience, everybody is
//!   let in. The line is bounded by time; by count there is only a large bound.
//! - Who would wait longer is refused. That this happens says that there is an overload, and after a
//!   tolerance of it the line is made shorter, step by step: those who are served need not wait long
//!   for it. It is never shorter than a moment, in which no worker becomes idle.
//! - When a worker becomes idle soon after a refusal, that refusal was wrong, and the line may be
//!   twice as long at once.
//! - From time to time the line is let grow to see whether the overload is still there: a closed loop
//!   of clients that try again at once fills any line, but does not make it longer and longer.
//! - While the line is short, a request of a source that has had little of late may wait as long as if it were
//!   not: those who have had much give way to it ([`Shares`]).
//! - Clients that have gone while they waited say how long clients really wait.
//!
//! How many requests may be at an upstream, of which nothing is known but what it answers, is found by a
//! [`Limit`]: who is over it waits in a line before a gate.
//!
//! `simulation` says what each rule is worth, and the ideas come from *Fail at Scale* (ACM Queue
//! 2015) and CoDel (ACM Queue 2012).

mod budget;
mod gate;
mod limit;
mod line;
mod pace;
mod shares;
#[cfg(test)]
mod simulation;
mod watch;
mod window;

pub(crate) use self::limit::Limit;
pub(crate) use self::{
    gate::{Gate, Kind, Take, Terms, Verdict, Wait},
    shares::{Share, Shares, Source},
    watch::{Change, Watch},
};
