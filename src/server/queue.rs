//! The bounded queue in which newcomers wait for a worker. It knows neither who lets them in nor who
//! takes them.

use std::{collections::VecDeque, os::fd::OwnedFd, time::Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::{session::life::Session, sys::tally::Counted};

/// A connection in the queue.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) socket: OwnedFd,
    pub(crate) accepted: Instant,
    /// It may have waited in the backlog before that.
    pub(crate) late: bool,
    /// It is one of those that are open.
    pub(crate) open: Counted,
}

impl Newcomer {
    pub(crate) fn into_session<S>(self) -> Session<S> {
        Session::new(self.socket, self.accepted, self.open)
    }
}

/// Those of a queue who are served before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Usual,
    /// Newcomers of sources that have had little of late, while there is an overload.
    Light,
}

const CLASSES: [Class; 2] = [Class::Usual, Class::Light];

/// The end of the queue at which newcomers come in; there is but one.
#[derive(Debug)]
pub(crate) struct Entrance([Side; CLASSES.len()]);

#[derive(Debug)]
struct Side {
    sender: Sender<Newcomer>,
    /// When each of those in it was accepted; the first may have been taken already.
    queued: VecDeque<Instant>,
}

/// The end at which they are taken, those of light sources first: they are few by what makes them light.
#[derive(Debug)]
pub(crate) struct Exit([Receiver<Newcomer>; CLASSES.len()]);

/// A queue for so many of each class.
pub(crate) fn queue(capacity: usize) -> (Entrance, Exit) {
    let [(usual, usuals), (light, lights)] = CLASSES.map(|_| bounded(capacity));
    let side = |sender| Side { sender, queued: VecDeque::new() };
    (Entrance([side(usual), side(light)]), Exit([usuals, lights]))
}

impl Entrance {
    pub(crate) fn len(&self, class: Class) -> usize {
        self.0[class as usize].sender.len()
    }

    /// The newcomer is given back where there is no room.
    pub(crate) fn push(&mut self, newcomer: Newcomer, class: Class) -> Result<(), Newcomer> {
        let side = &mut self.0[class as usize];
        let accepted = newcomer.accepted;
        side.sender.try_send(newcomer).map_err(TrySendError::into_inner)?;
        side.queued.push_back(accepted);
        side.forget_taken();
        Ok(())
    }

    /// When the first was accepted, and of which class it is.
    pub(crate) fn oldest(&mut self) -> Option<(Instant, Class)> {
        self.0.iter_mut().for_each(Side::forget_taken);
        let first = |class: Class| Some((*self.0[class as usize].queued.front()?, class));
        CLASSES.into_iter().filter_map(first).min_by_key(|(accepted, _)| *accepted)
    }

    /// Says that the first of a class was taken at this end.
    pub(crate) fn took_oldest(&mut self, class: Class) {
        self.0[class as usize].queued.pop_front();
    }
}

impl Side {
    fn forget_taken(&mut self) {
        let queued = self.sender.len();
        self.queued.drain(..self.queued.len().saturating_sub(queued));
    }
}

impl Exit {
    /// The next to be served.
    pub(crate) fn take(&self) -> Option<Newcomer> {
        self.take_of(Class::Light).or_else(|| self.take_of(Class::Usual))
    }

    pub(crate) fn take_of(&self, class: Class) -> Option<Newcomer> {
        self.0[class as usize].try_recv().ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Receiver::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Receiver::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};

    use super::*;
    use crate::sys::tally::Tally;

    #[test]
    fn light_newcomers_are_served_before_the_others_and_the_oldest_is_known_in_any_case() {
        let (mut entrance, exit) = queue(2);
        let t = Instant::now();
        let newcomer = |ms| Newcomer {
            socket: UnixStream::pair().unwrap().0.into(),
            accepted: t + Duration::from_millis(ms),
            late: false,
            open: Arc::new(Tally::default()).count(),
        };
        for (ms, class) in [(0, Class::Usual), (1, Class::Light), (2, Class::Usual), (3, Class::Light)] {
            entrance.push(newcomer(ms), class).unwrap();
        }
        // Each class has room of its own.
        assert_eq!((exit.len(), entrance.len(Class::Usual), entrance.len(Class::Light)), (4, 2, 2));
        assert!(entrance.push(newcomer(4), Class::Usual).is_err());
        assert_eq!(entrance.oldest(), Some((t, Class::Usual)));
        let taken = std::iter::from_fn(|| exit.take()).map(|newcomer| (newcomer.accepted - t).as_millis());
        assert_eq!(taken.collect::<Vec<_>>(), [1, 3, 0, 2]);
        assert!(exit.is_empty() && entrance.oldest().is_none());
    }
}
