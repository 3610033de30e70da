//! Slots, in which tenants are parked while nothing happens to them. It knows keys and flags alone:
//! neither what a tenant is nor who waits for its events.

use std::{
    mem,
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::{flags::Flags, key::Key};

/// Slots are made in chunks as they are first needed.
const CHUNK: usize = 256;

type Chunk<T, A> = Box<[Mutex<Slot<T, A>>]>;

/// A table of tenants `T`, each with an anchor `A` that can be had wherever the tenant is.
#[derive(Debug)]
pub(crate) struct Slots<T, A> {
    chunks: Box<[OnceLock<Chunk<T, A>>]>,
    vacant: Mutex<Vacant>,
}

#[derive(Debug)]
struct Slot<T, A> {
    generation: u32,
    holds: Holds<T>,
    anchor: Option<Arc<A>>,
}

/// What is in a slot.
///
/// | it holds | `take` | `park` | `lend` | `release` |
/// |---|---|---|---|---|
/// | nothing | none | (has no key) | none | nothing |
/// | a parked tenant | the tenant; it runs | (is not with who parks it) | none | nothing |
/// | the flags of one that runs | kept | parked, or returned with what was missed | lent | nothing |
/// | to whom it is lent | that one's tenant, as its other's | runs again | lent | nothing |
#[derive(Debug, PartialEq, Eq)]
enum Holds<T> {
    Nothing,
    Parked(T),
    /// The tenant is with somebody; what has happened meanwhile.
    Running(Flags),
    /// What happens concerns another tenant.
    Lent {
        to: Key,
    },
}

impl<T> Holds<T> {
    /// What has happened while the tenant was with somebody, who has it run from now on.
    fn begin_run(&mut self) -> Flags {
        match mem::replace(self, Self::Running(Flags::NONE)) {
            Self::Running(flags) => flags,
            Self::Nothing | Self::Parked(_) | Self::Lent { .. } => Flags::NONE,
        }
    }

    /// The tenant, if it is parked. What has happened is kept for it where it is not.
    fn take(&mut self, flags: Flags) -> Taken<T> {
        match mem::replace(self, Self::Running(Flags::NONE)) {
            Self::Parked(tenant) => Taken::Tenant(tenant),
            Self::Running(earlier) => {
                *self = Self::Running(earlier.and(flags));
                Taken::Nobody
            }
            Self::Lent { to } => {
                *self = Self::Lent { to };
                Taken::Lent(to)
            }
            Self::Nothing => {
                *self = Self::Nothing;
                Taken::Nobody
            }
        }
    }
}

/// What came of looking for a tenant.
#[derive(Debug, PartialEq, Eq)]
enum Taken<T> {
    Tenant(T),
    Lent(Key),
    Nobody,
}

/// Whether `visit` takes a tenant out of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    Leave,
    Take,
}

/// What came of parking a tenant.
#[derive(Debug)]
pub(crate) enum Parking<T> {
    Parked,
    /// There is something to do for it first.
    Returned(T),
    /// It cannot wait for events: out of slots, memory or watches.
    Failed(T, Errno),
}

#[derive(Debug)]
struct Vacant {
    reusable: Vec<u32>,
    unused: u32,
}

impl<T, A> Slots<T, A> {
    /// With room for so many.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            chunks: (0..capacity.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            vacant: Mutex::new(Vacant { reusable: Vec::new(), unused: 0 }),
        }
    }

    /// A slot for a tenant that runs; none where all are taken.
    pub(crate) fn allocate(&self, anchor: Arc<A>) -> Option<Key> {
        let index = {
            let mut vacant = self.vacant.lock();
            match vacant.reusable.pop() {
                Some(index) => index,
                None if (vacant.unused as usize) < self.chunks.len() * CHUNK => {
                    vacant.unused += 1;
                    vacant.unused - 1
                }
                None => return None,
            }
        };
        let mut slot = self.slot(index)?.lock();
        slot.holds = Holds::Running(Flags::NONE);
        slot.anchor = Some(anchor);
        Some(Key { index, generation: slot.generation })
    }

    /// Gives the slot of a running tenant back; what still happens to that one finds another generation.
    pub(crate) fn release(&self, key: Key) {
        let Some(slot) = self.slot(key.index) else { return };
        {
            let mut slot = slot.lock();
            slot.generation = slot.generation.wrapping_add(1);
            slot.holds = Holds::Nothing;
            slot.anchor = None;
        }
        self.vacant.lock().reusable.push(key.index);
    }

    /// Puts a running tenant into its slot. `settle` is told, with the slot locked, what has happened while
    /// it ran, and says whether it stays; if not, it is returned and runs on.
    pub(crate) fn park(
        &self,
        key: Key,
        mut tenant: T,
        settle: impl FnOnce(&mut T, Flags) -> Result<bool, Errno>,
    ) -> Parking<T> {
        let Some(mut slot) = self.of(key) else { return Parking::Failed(tenant, Errno::NOENT) };
        let missed = slot.holds.begin_run();
        match settle(&mut tenant, missed) {
            Ok(true) => {
                slot.holds = Holds::Parked(tenant);
                Parking::Parked
            }
            Ok(false) => Parking::Returned(tenant),
            Err(errno) => Parking::Failed(tenant, errno),
        }
    }

    /// Takes the tenant out of its slot to run it, with what has happened to it: the one to whom it is
    /// lent, where it is. None when it has ended, or when somebody has it; that one is told when it parks.
    pub(crate) fn take(&self, key: Key, flags: Flags) -> Option<(T, Flags)> {
        let taken = self.of(key)?.holds.take(flags);
        match taken {
            Taken::Tenant(tenant) => Some((tenant, flags)),
            Taken::Nobody => None,
            Taken::Lent(to) => {
                let flags = flags.of_other();
                match self.of(to)?.holds.take(flags) {
                    Taken::Tenant(tenant) => Some((tenant, flags)),
                    Taken::Lent(_) | Taken::Nobody => None,
                }
            }
        }
    }

    /// Takes the tenant out of its slot to run it if it is parked there and that is wanted.
    pub(crate) fn take_if(&self, key: Key, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut slot = self.of(key)?;
        match &slot.holds {
            Holds::Parked(tenant) if wanted(tenant) => {}
            Holds::Parked(_) | Holds::Nothing | Holds::Running(_) | Holds::Lent { .. } => return None,
        }
        match slot.holds.take(Flags::NONE) {
            Taken::Tenant(tenant) => Some(tenant),
            Taken::Lent(_) | Taken::Nobody => None,
        }
    }

    /// Has what happens to this running tenant concern another one from now on. Gives whether something has
    /// happened since it was given back; what has happened to whoever had it last is not told.
    pub(crate) fn lend(&self, key: Key, to: Key) -> bool {
        let Some(mut slot) = self.of(key) else { return true };
        let missed = slot.holds.begin_run();
        slot.holds = Holds::Lent { to };
        missed != Flags::NONE
    }

    /// Has it concern itself again.
    pub(crate) fn give_back(&self, key: Key) {
        if let Some(mut slot) = self.of(key) {
            slot.holds = Holds::Running(Flags::NONE);
        }
    }

    /// The tenant's anchor, wherever it is; none when it has ended.
    pub(crate) fn anchor(&self, key: Key) -> Option<Arc<A>> {
        self.of(key)?.anchor.clone()
    }

    /// Shows every parked tenant to `visit`, one at a time and with its slot locked, and hands those that
    /// it takes to `taken`, running.
    pub(crate) fn visit_parked(&self, mut visit: impl FnMut(Key, &mut T) -> Visit, mut taken: impl FnMut(T)) {
        let unused = self.vacant.lock().unused;
        for index in 0..unused {
            let Some(slot) = self.slot(index) else { return };
            let mut slot = slot.lock();
            let key = Key { index, generation: slot.generation };
            let Holds::Parked(tenant) = &mut slot.holds else { continue };
            if visit(key, tenant) == Visit::Take
                && let Taken::Tenant(tenant) = slot.holds.take(Flags::NONE)
            {
                drop(slot);
                taken(tenant);
            }
        }
    }

    fn slot(&self, index: u32) -> Option<&Mutex<Slot<T, A>>> {
        let index = index as usize;
        let chunk = self.chunks.get(index / CHUNK)?.get_or_init(|| {
            (0..CHUNK)
                .map(|_| Mutex::new(Slot { generation: 0, holds: Holds::Nothing, anchor: None }))
                .collect()
        });
        chunk.get(index % CHUNK)
    }

    /// The slot, locked, if it is still this tenant's.
    fn of(&self, key: Key) -> Option<MutexGuard<'_, Slot<T, A>>> {
        let slot = self.slot(key.index)?.lock();
        (slot.generation == key.generation).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::epoll::EventFlags;

    use super::*;

    const INPUT: Flags = Flags { own: EventFlags::IN, ..Flags::NONE };
    const OTHERS: Flags = Flags { other: EventFlags::IN, ..Flags::NONE };

    fn stay(_: &mut &str, missed: Flags) -> Result<bool, Errno> {
        Ok(missed == Flags::NONE)
    }

    #[test]
    fn each_transition() {
        let to = Key { index: 7, generation: 7 };
        let running = |flags| Holds::<&str>::Running(flags);
        // What is there, what happens, what comes of it, and what is there then.
        let taken = [
            (Holds::Nothing, Taken::Nobody, Holds::Nothing),
            (Holds::Parked("a"), Taken::Tenant("a"), running(Flags::NONE)),
            (running(Flags::NONE), Taken::Nobody, running(INPUT)),
            (running(Flags::WOKEN), Taken::Nobody, running(INPUT.and(Flags::WOKEN))),
            (Holds::Lent { to }, Taken::Lent(to), Holds::Lent { to }),
        ];
        for (mut holds, expected, then) in taken {
            assert_eq!(holds.take(INPUT), expected);
            assert_eq!(holds, then);
        }
        let begun = [
            (running(INPUT), INPUT),
            (running(Flags::NONE), Flags::NONE),
            (Holds::Lent { to }, Flags::NONE),
            (Holds::Nothing, Flags::NONE),
        ];
        for (mut holds, missed) in begun {
            assert_eq!(holds.begin_run(), missed);
            assert_eq!(holds, running(Flags::NONE));
        }
    }

    #[test]
    fn what_happens_while_a_tenant_runs_is_told_when_it_parks() {
        for flags in [INPUT, OTHERS, Flags::WOKEN] {
            let slots = Slots::new(1);
            let key = slots.allocate(Arc::new(())).unwrap();
            assert_eq!(slots.take(key, flags), None);
            let mut told = None;
            let parking = slots.park(key, "a", |_, missed| {
                told = Some(missed);
                Ok(false)
            });
            assert!(matches!(parking, Parking::Returned("a")));
            assert_eq!(told, Some(flags));
            // It is told once.
            assert!(matches!(slots.park(key, "a", stay), Parking::Parked));
            assert_eq!(slots.take(key, flags), Some(("a", flags)));
        }
    }

    #[test]
    fn what_happens_to_a_predecessor_does_not_concern_its_successor() {
        let slots = Slots::new(1);
        let old = slots.allocate(Arc::new(1)).unwrap();
        slots.release(old);
        let new = slots.allocate(Arc::new(2)).unwrap();
        assert_eq!((new.index, new.generation), (old.index, old.generation + 1));
        assert!(matches!(slots.park(new, "b", stay), Parking::Parked));
        assert_eq!(slots.take(old, INPUT), None);
        assert!(slots.anchor(old).is_none());
        assert_eq!(slots.anchor(new), Some(Arc::new(2)));
        assert_eq!(slots.take(new, INPUT), Some(("b", INPUT)));
    }

    #[test]
    fn what_happens_to_a_lent_one_concerns_who_has_it() {
        let slots = Slots::new(3);
        let [lent, first, second] = [(); 3].map(|()| slots.allocate(Arc::new(())).unwrap());
        assert!(matches!(slots.park(first, "first", stay), Parking::Parked));
        assert!(matches!(slots.park(second, "second", stay), Parking::Parked));
        assert!(!slots.lend(lent, first));
        assert_eq!(slots.take(lent, INPUT), Some(("first", OTHERS)));
        // It runs now, and is told later.
        assert_eq!(slots.take(lent, INPUT), None);
        assert!(matches!(slots.park(first, "first", |_, missed| Ok(missed != OTHERS)), Parking::Returned(_)));
        slots.give_back(lent);
        assert_eq!(slots.take(lent, INPUT), None);
        // It is told that something has happened while nobody had it.
        assert!(slots.lend(lent, second));
        assert_eq!(slots.take(lent, INPUT), Some(("second", OTHERS)));
        // One that has ended is told nothing, and neither is its successor.
        slots.release(second);
        let third = slots.allocate(Arc::new(())).unwrap();
        assert!(matches!(slots.park(third, "third", stay), Parking::Parked));
        assert_eq!(slots.take(lent, INPUT), None);
    }

    #[test]
    fn a_full_table_has_no_slot_and_a_released_one_comes_back() {
        let slots = Slots::<&str, ()>::new(1);
        let keys: Vec<_> = (0..CHUNK).map(|_| slots.allocate(Arc::new(())).unwrap()).collect();
        assert_eq!(slots.allocate(Arc::new(())), None);
        slots.release(keys[9]);
        assert_eq!(slots.allocate(Arc::new(())).map(|key| key.index), Some(keys[9].index));
    }

    #[test]
    fn visitors_take_whom_they_want() {
        let slots = Slots::new(1);
        for name in ["a", "b", "c"] {
            let key = slots.allocate(Arc::new(())).unwrap();
            assert!(matches!(slots.park(key, name, stay), Parking::Parked));
        }
        let (mut seen, mut taken) = (Vec::new(), Vec::new());
        let visit = |_, tenant: &mut &'static str| {
            seen.push(*tenant);
            if *tenant == "b" { Visit::Take } else { Visit::Leave }
        };
        slots.visit_parked(visit, |tenant| taken.push(tenant));
        assert_eq!((seen, taken), (vec!["a", "b", "c"], vec!["b"]));
    }
}
