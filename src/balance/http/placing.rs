//! How a request comes to a connection to an upstream: a place, a spare connection or a new one, and what
//! is done where that was in vain. It does not know what is said over it.

use std::{
    io,
    time::{Duration, Instant},
};

use http::StatusCode;
use rustix::io::Errno;

use super::{
    access::Why,
    exchange::{Exchange, Serving, Step},
    proxy::{Client, Proxy, Stage},
};
use crate::{
    balance::{
        preface,
        upstreams::{InLine, Lease, Left, Place, Turn},
    },
    session::{
        connection::{Borrowed, Connection},
        handler::Next,
    },
    sys::connect,
};

/// A request that must not be done twice takes no connection that was idle for longer: it may be closed at
/// this moment, and nobody could say whether the request was done.
const FRESH: Duration = Duration::from_secs(1);

impl Proxy {
    /// Finds a place at an upstream, or in the line; else the client is told no.
    pub(super) fn place(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
    ) -> io::Result<Option<Next>> {
        match self.upstreams.place(exchange.came, &exchange.tried, exchange.source, connection) {
            Place::At(lease) => self.reach(connection, client, exchange, lease),
            Place::InLine(waiter) => {
                connection.await_turn(self.upstreams.waits_until(&waiter));
                exchange.step = Step::InLine(InLine::new(&self.upstreams, waiter));
                client.stage = Stage::Exchange(exchange);
                // That its client has gone may have been told together with its request.
                Ok(None)
            }
            Place::Nowhere => self.refuse(connection, client, &mut exchange, StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    pub(super) fn wait_in_line(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        line: InLine,
    ) -> io::Result<Option<Next>> {
        match line.waiter.take() {
            Some(Turn::Place(lease)) => self.reach(connection, client, exchange, lease),
            Some(Turn::Shed) => {
                self.refuse(connection, client, &mut exchange, StatusCode::SERVICE_UNAVAILABLE)
            }
            // Nothing was done yet, and whoever has ended its side may well have gone.
            None if connection.client().may_have_gone() => {
                self.upstreams.leave(&line.waiter, Left::Gone { had_asked: true });
                Ok(Some(Next::Close))
            }
            None => {
                exchange.step = Step::InLine(line);
                client.stage = Stage::Exchange(exchange);
                Ok(Some(Next::Park))
            }
        }
    }

    /// Has the request served at this upstream: over a spare connection, or a new one.
    fn reach(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        exchange: Box<Exchange>,
        mut lease: Lease,
    ) -> io::Result<Option<Next>> {
        let now = lease.since;
        let most = if exchange.asked.is_idempotent() { Duration::MAX } else { FRESH };
        // It has one at most: what leads elsewhere is closed.
        let reserved = client.reserved.take();
        let spare = || match (exchange.in_force.config.send_proxy, &reserved) {
            (None, _) => lease.upstream().spares.take(most, now),
            (Some(_), Some(reserved)) => reserved.take(lease.upstream(), most, now),
            (Some(_), None) => None,
        };
        // One that is tried again has just met a connection that had died.
        while !exchange.is_retry
            && let Some(spare) = spare()
        {
            let is_usable = match connection.borrow(spare) {
                Borrowed::Untouched if exchange.asked.is_idempotent() => true,
                // It was closed, or this is an event of what was read before; and an event may lie where
                // nobody has taken it yet.
                Borrowed::Touched | Borrowed::Untouched => {
                    connection.sides().is_some_and(|(_, other, _)| other.wire.is_quiet())
                }
                Borrowed::Nowhere => break,
            };
            if is_usable {
                lease.reused();
                return self.send(connection, client, exchange, Serving::new(lease, true, now));
            }
            connection.part();
        }
        self.connect(connection, client, exchange, lease)
    }

    fn connect(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        lease: Lease,
    ) -> io::Result<Option<Next>> {
        let until = Instant::now() + exchange.in_force.config.connect_timeout;
        let began = connect::begin(&lease.upstream().addr);
        let joined = began.and_then(|socket| match connection.join_lodged(socket, until) {
            true => Ok(()),
            false => Err(Errno::NOMEM),
        });
        if let Err(errno) = joined {
            return self.connected_in_vain(connection, client, exchange, lease, errno);
        }
        exchange.step = Step::Connecting { lease };
        client.stage = Stage::Exchange(exchange);
        Ok(None)
    }

    pub(super) fn await_connection(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        mut lease: Lease,
    ) -> io::Result<Option<Next>> {
        let Some((own, other, _)) = connection.sides() else { return Ok(Some(Next::Close)) };
        match connect::is_made(&other.wire.socket) {
            Ok(true) => {
                other.arrived();
                lease.connected();
                preface::introduce(connection, exchange.in_force.config.send_proxy);
                self.send(connection, client, exchange, Serving::new(lease, false, Instant::now()))
            }
            // Nothing was sent yet.
            Ok(false) if own.is_gone() => Ok(Some(Next::Close)),
            Ok(false) => {
                exchange.step = Step::Connecting { lease };
                client.stage = Stage::Exchange(exchange);
                Ok(Some(Next::Park))
            }
            Err(errno) => self.connected_in_vain(connection, client, exchange, lease, errno),
        }
    }

    /// After a connect in vain: to another upstream.
    pub(super) fn connected_in_vain(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        mut lease: Lease,
        errno: Errno,
    ) -> io::Result<Option<Next>> {
        connection.part();
        if connect::is_own_lack(errno) {
            // It says nothing of the upstream, and may be over soon.
            lease.lacked(errno);
        } else if errno == Errno::CONNRESET {
            lease.was_busy();
        } else {
            tracing::debug!(upstream = lease.upstream().name, error = %errno, "trying another upstream");
            lease.failed(errno);
        }
        exchange.tried.add(lease.upstream().id.number, Instant::now());
        drop(lease);
        self.place(connection, client, exchange)
    }

    /// The connection to the upstream has ended before anything of a reply came. Where nothing can be done
    /// twice, the request is served once more.
    pub(super) fn died_unanswered(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        mut serving: Serving,
    ) -> io::Result<Option<Next>> {
        connection.part();
        serving.lease.says_nothing();
        if exchange.may_be_sent_again() && self.retries.take(Instant::now()) {
            exchange.is_retry = true;
            if !serving.is_reused {
                // It was not idleness that ended it.
                exchange.tried.add(serving.lease.upstream().id.number, Instant::now());
            }
            exchange.note(|entry, _| entry.retries += 1);
            drop(serving);
            return self.place(connection, client, exchange);
        }
        tracing::debug!(upstream = serving.lease.upstream().name, "closed the connection without a reply");
        if !serving.is_reused {
            serving.lease.unserved();
        }
        // It may be closed just because it was idle: a client that knows that of its own connection tries
        // again, if that does no harm.
        if serving.is_reused && !exchange.asked.is_first && exchange.has_come() {
            exchange.note(|entry, _| entry.end = Why::Upstream);
            return Ok(Some(Next::Close));
        }
        self.refuse(connection, client, &mut exchange, StatusCode::BAD_GATEWAY)
    }

    /// The time of a step has passed.
    pub(super) fn took_too_long(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
    ) -> io::Result<Option<Next>> {
        match exchange.take_step() {
            Step::InLine(line) => {
                if let Some(until) = self.upstreams.look_again(&line.waiter) {
                    connection.await_turn(until);
                }
                exchange.step = Step::InLine(line);
                client.stage = Stage::Exchange(exchange);
                Ok(None)
            }
            Step::Connecting { lease } => {
                self.connected_in_vain(connection, client, exchange, lease, Errno::TIMEDOUT)
            }
            // It came at the last moment.
            Step::Serving(serving)
                if connection.sides().is_some_and(|(_, other, _)| !other.wire.is_quiet()) =>
            {
                exchange.step = Step::Serving(serving);
                client.stage = Stage::Exchange(exchange);
                Ok(None)
            }
            Step::Serving(mut serving) => {
                let takes = connection.sides().is_none_or(|(_, other, _)| other.wire.is_flushed());
                let is_clients_fault = takes && !exchange.has_come();
                if is_clients_fault {
                    serving.lease.says_nothing();
                } else {
                    serving.lease.unserved();
                }
                if let Some(reply) = &serving.reply {
                    let (status, bytes) = (reply.status.as_u16(), reply.bytes);
                    exchange.note(|entry, _| {
                        (entry.status, entry.bytes, entry.end) = (status, bytes, Why::Timeout)
                    });
                    // What breaks off is not to be taken for whole.
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let status = match is_clients_fault {
                    true => StatusCode::REQUEST_TIMEOUT,
                    false => StatusCode::GATEWAY_TIMEOUT,
                };
                drop(serving);
                self.refuse(connection, client, &mut exchange, status)
            }
            Step::Placing => Ok(Some(Next::Close)),
        }
    }
}
