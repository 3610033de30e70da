//! Name resolution on threads of its own. `getaddrinfo(3)` cannot be cancelled, so that they may be left
//! behind; they are counted. It does not know what is done with the addresses.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

/// Resolver threads in this process, those left behind included.
static OUTSTANDING: AtomicUsize = AtomicUsize::new(0);
const OUTSTANDING_LIMIT: usize = 64;

/// What a name stands for.
pub(crate) type Answer = io::Result<Vec<SocketAddr>>;

/// Counts one resolver thread; dropping it counts it as ended.
#[derive(Debug)]
pub(crate) struct Permit(());

impl Permit {
    /// None while there are as many as may be.
    pub(crate) fn take() -> Option<Self> {
        let more = |count| (count < OUTSTANDING_LIMIT).then_some(count + 1);
        OUTSTANDING.fetch_update(SeqCst, SeqCst, more).ok().map(|_| Self(()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        OUTSTANDING.fetch_sub(1, SeqCst);
    }
}

/// Has a thread resolve a name, and then do something with the answer. A name without an address is an
/// error.
pub(crate) fn resolve_apart(
    permit: Permit,
    name: &str,
    resolver: impl FnOnce(&str) -> Answer + Send + 'static,
    answered: impl FnOnce(Answer) + Send + 'static,
) -> io::Result<()> {
    let name = name.to_owned();
    let resolve = move || {
        let answer = resolver(&name).and_then(|addrs| match addrs.is_empty() {
            true => Err(io::Error::other("the name has no address")),
            false => Ok(addrs),
        });
        drop(permit);
        answered(answer);
    };
    thread::Builder::new().name("resolver".into()).spawn(resolve).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_name_without_an_address_is_an_error() {
        let (answered, answers) = channel();
        for addrs in [vec![], vec![SocketAddr::from(([127, 0, 0, 1], 80))]] {
            let (permit, answered) = (Permit::take().unwrap(), answered.clone());
            let resolver = move |name: &str| {
                assert_eq!(name, "it:80");
                Ok(addrs)
            };
            resolve_apart(permit, "it:80", resolver, move |answer| answered.send(answer).unwrap()).unwrap();
        }
        let mut answers: Vec<_> = answers.iter().take(2).collect();
        answers.sort_by_key(Result::is_ok);
        assert_eq!(answers[0].as_ref().unwrap_err().to_string(), "the name has no address");
        assert_eq!(answers[1].as_ref().unwrap().len(), 1);
    }
}
