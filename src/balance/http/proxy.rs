//! The handler: each connection gathers a request, has it served by an upstream, and goes on with the next.
//! It knows neither how a place is found nor what passes between the two sides.

use std::{
    borrow::Cow,
    io::{self, Write},
    mem,
    net::IpAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};

use super::{
    access::{Record, Why},
    exchange::{self, Asked, Exchange, Step, Upload},
    refusal,
    request::{self, Forwarded},
    reserved::Reserved,
    retries::Retries,
    tunnel::Tunnel,
    upload,
};
use crate::{
    balance::{
        flow::Pipes,
        live::{InForce, Live},
        tried::Tried,
        upstreams::{Upstreams, source_of},
    },
    http::{
        arrival::{self, Arrival},
        codec::{
            framing::Framing,
            head::{Head, asks_for_head, empty_lines},
        },
        gathered::Gathered,
        large::{PartialBody, Stand},
        progress::Progress,
        receipt::{BodyLimits, Receipt},
        taken::{Taken, take_head},
    },
    session::{
        connection::Connection,
        handler::{Handler, Next, Refusal},
    },
};

pub(in crate::balance) struct Proxy {
    pub(super) upstreams: Arc<Upstreams>,
    live: Arc<Live>,
    pub(super) retries: Retries,
    /// Bytes of bodies that are being gathered, of all connections.
    gathered: Arc<AtomicUsize>,
    pub(super) pipes: Pipes,
}

impl Proxy {
    pub(in crate::balance) fn new(upstreams: Arc<Upstreams>, live: Arc<Live>, pipes: Pipes) -> Self {
        Self { upstreams, live, retries: Retries::new(Instant::now()), gathered: Arc::default(), pipes }
    }
}

/// One client.
#[derive(Debug)]
pub(in crate::balance) struct Client {
    ip: IpAddr,
    /// It has made a request before.
    has_asked: bool,
    pub(super) stage: Stage,
    /// Its connection to an upstream that is nobody else's, as that was told of it.
    pub(super) reserved: Option<Box<Reserved>>,
}

/// What is under way.
#[derive(Debug)]
pub(super) enum Stage {
    /// A request is gathered in the input.
    Gathering(Progress),
    /// Its body is gathered in memory.
    Buffering(Box<Buffering>),
    Exchange(Box<Exchange>),
    Tunnel(Box<Tunnel>),
}

/// A request whose body is gathered.
#[derive(Debug)]
pub(super) struct Buffering {
    body: PartialBody,
    /// The settings that it began with.
    in_force: Arc<InForce>,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Gathering(Progress::default())
    }
}

impl Handler for Proxy {
    type State = Client;

    const CLIENT_SPEAKS_FIRST: bool = true;
    const PROTOCOLS: &'static [&'static [u8]] = &[b"http/1.1"];

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Client> {
        let ip = connection.peer_addr()?.ip().to_canonical();
        Ok(Client { ip, has_asked: false, stage: Stage::default(), reserved: None })
    }

    fn ready(&self, connection: &mut Connection<'_>, client: &mut Client) -> io::Result<Next> {
        loop {
            let next = match mem::take(&mut client.stage) {
                Stage::Gathering(progress) => self.gather(connection, client, progress)?,
                Stage::Buffering(buffering) => self.buffer(connection, client, *buffering)?,
                Stage::Exchange(exchange) => self.go_on(connection, client, exchange)?,
                Stage::Tunnel(mut tunnel) => {
                    let next = tunnel.go_on(connection, &self.pipes);
                    client.stage = Stage::Tunnel(tunnel);
                    Some(next?)
                }
            };
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, client: &mut Client) -> io::Result<Next> {
        match mem::take(&mut client.stage) {
            Stage::Gathering(_) => self.gathered_too_slowly(connection, client),
            Stage::Buffering(buffering) => {
                connection.part();
                let head_only = buffering.body.asks_for_head();
                self.refuse_and_close(connection, client, StatusCode::REQUEST_TIMEOUT, head_only)
            }
            Stage::Exchange(exchange) => match self.took_too_long(connection, client, exchange)? {
                Some(next) => Ok(next),
                None => self.ready(connection, client),
            },
            Stage::Tunnel(_) => Ok(Next::Close),
        }
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        let in_force = self.live.get();
        match in_force.config.busy_reply.is_empty() {
            true => refusal::at_the_door().into(),
            false => in_force.config.busy_reply.clone().into(),
        }
    }
}

impl Proxy {
    fn gather(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut progress: Progress,
    ) -> io::Result<Option<Next>> {
        match arrival::look(connection, &mut progress, u64::MAX) {
            Ok(Arrival::Part) => {
                client.stage = Stage::Gathering(progress);
                Ok(Some(Next::Park))
            }
            // What a server may forgive, nobody is to read in another way.
            Ok(Arrival::Whole(head) | Arrival::Head(head)) if !head.strict => {
                self.refuse_malformed(connection, client, StatusCode::BAD_REQUEST).map(Some)
            }
            Ok(Arrival::Whole(head)) => self.begin(connection, client, &head, Body::Whole, self.live.get()),
            // It can never be whole.
            Ok(Arrival::Head(_)) if connection.ended() => {
                self.refuse_malformed(connection, client, StatusCode::BAD_REQUEST).map(Some)
            }
            Ok(Arrival::Head(head)) => self.begin_large(connection, client, progress, &head),
            Err(status) => self.refuse_malformed(connection, client, status).map(Some),
        }
    }

    /// Begins with a request whose body may be more than the input holds.
    fn begin_large(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut progress: Progress,
        head: &Head,
    ) -> io::Result<Option<Next>> {
        let in_force = self.live.get();
        let was_told = progress.was_told();
        if !was_told && may_gather(head, &in_force) {
            connection.write_all(CONTINUE)?;
            progress.tell();
            // It may be there already.
            return self.gather(connection, client, progress);
        }
        if (was_told || !head.expects_continue) && self.may_buffer(connection, client, head, &in_force) {
            return Ok(None);
        }
        self.begin(connection, client, head, Body::Part { was_told }, in_force)
    }

    fn gathered_too_slowly(&self, connection: &mut Connection<'_>, client: &Client) -> io::Result<Next> {
        let input = connection.input();
        // Nothing has come, or nothing that means anything.
        if empty_lines(input) == input.len() {
            return Ok(Next::Close);
        }
        self.refuse_malformed(connection, client, StatusCode::REQUEST_TIMEOUT)
    }

    /// Begins with a request, of whose body all has come, or a part.
    fn begin(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        head: &Head,
        body: Body,
        in_force: Arc<InForce>,
    ) -> io::Result<Option<Next>> {
        let text = take_head(connection, head);
        let pass_expect = body == Body::Part { was_told: false };
        let forwarded = Forwarded { pass_expect, ..forwarded(connection, client, head.framing, &in_force) };
        let is_whole = body == Body::Whole;
        let (request, upload) = upload::begin(connection, &text, head, is_whole, &forwarded, Instant::now())?;
        self.start(connection, client, head, &text, (request, upload), in_force);
        Ok(None)
    }

    /// Gathers a body in memory that is not too large for it, before a place is taken. Whether there is room
    /// for it.
    fn may_buffer(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        head: &Head,
        in_force: &Arc<InForce>,
    ) -> bool {
        let length = head.framing.length().filter(|&length| length <= in_force.http.buffer_body);
        let Some(room) = length.and_then(|length| Gathered::new(&self.gathered, Some(length))) else {
            return false;
        };
        let text = take_head(connection, head);
        let body = PartialBody::new(text, Receipt::new(head.framing), room);
        client.stage = Stage::Buffering(Box::new(Buffering { body, in_force: Arc::clone(in_force) }));
        true
    }

    fn buffer(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        Buffering { body, in_force }: Buffering,
    ) -> io::Result<Option<Next>> {
        // Its client has to keep up the minimum rate.
        let limits = BodyLimits { bytes: in_force.http.buffer_body, time: BUFFERED_WITHIN };
        let head_only = body.asks_for_head();
        match body.gather(connection, limits)? {
            Stand::Whole(Taken { head, text, gathered: Some(body), .. }) => {
                let forwarded = forwarded(connection, client, head.framing, &in_force);
                let request = upload::gathered_before(&text, &head, body, &forwarded);
                self.start(connection, client, &head, &text, (request, None), in_force);
                Ok(None)
            }
            Stand::Part(body, next) => {
                client.stage = Stage::Buffering(Box::new(Buffering { body, in_force }));
                Ok(Some(next))
            }
            Stand::Failed(status) => self.refuse_and_close(connection, client, status, head_only).map(Some),
            // There was room for all of it.
            Stand::Whole(_) | Stand::Busy => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                self.refuse_and_close(connection, client, status, head_only).map(Some)
            }
        }
    }

    /// Has the request served from now on.
    fn start(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        head: &Head,
        text: &[u8],
        (request, upload): (exchange::Request, Option<Upload>),
        in_force: Arc<InForce>,
    ) {
        connection.describe_in_parts(&[head.method.as_str(), " ", head.uri.path()]);
        let asked = Asked::new(head, request::asks_for_upgrade(text, head), !client.has_asked);
        client.has_asked = true;
        self.retries.request();
        let named = in_force.http.source_header.as_ref().and_then(|name| request::source(text, name));
        client.stage = Stage::Exchange(Box::new(Exchange {
            asked,
            came: Instant::now(),
            source: named.unwrap_or_else(|| source_of(connection)),
            request,
            upload,
            tried: Tried::default(),
            is_retry: false,
            is_abandoned: false,
            record: in_force.log.as_ref().map(|log| Record::new(log, client.ip, head)),
            in_force,
            step: Step::Placing,
        }));
    }

    /// Goes on with an exchange at whatever step it is.
    fn go_on(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
    ) -> io::Result<Option<Next>> {
        match exchange.take_step() {
            Step::Placing => self.place(connection, client, exchange),
            Step::InLine(line) => self.wait_in_line(connection, client, exchange, line),
            Step::Connecting { lease } => self.await_connection(connection, client, exchange, lease),
            Step::Serving(serving) => self.serve(connection, client, exchange, serving),
        }
    }

    /// Tells the client that its request is not answered.
    pub(super) fn refuse(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        status: StatusCode,
    ) -> io::Result<Option<Next>> {
        connection.part();
        exchange.note(|entry, _| (entry.status, entry.end) = (status.as_u16(), Why::of(status)));
        if exchange.is_abandoned {
            return Ok(Some(Next::Close));
        }
        let keep = exchange.asked.persistent && exchange.has_come() && !connection.draining();
        if !exchange.has_come() {
            connection.expect_more();
        }
        refusal::refuse(connection, &exchange.asked, status, keep)?;
        connection.note_answered();
        Ok(Some(self.next(connection, client, keep)))
    }

    /// Tells a client why what it has sent is no request that can be served.
    fn refuse_malformed(
        &self,
        connection: &mut Connection<'_>,
        client: &Client,
        status: StatusCode,
    ) -> io::Result<Next> {
        let head_only = asks_for_head(connection.input());
        self.refuse_and_close(connection, client, status, head_only)
    }

    fn refuse_and_close(
        &self,
        connection: &mut Connection<'_>,
        client: &Client,
        status: StatusCode,
        head_only: bool,
    ) -> io::Result<Next> {
        connection.expect_more();
        connection.context().counters.malformed.count();
        if let Some(log) = &self.live.get().log {
            drop(Record::malformed(log, client.ip, status));
        }
        let method = if head_only { Method::HEAD } else { Method::GET };
        let asked = Asked { method, http_11: true, persistent: false, upgrade: false, is_first: true };
        refusal::refuse(connection, &asked, status, false)?;
        Ok(Next::Close)
    }

    /// What becomes of a client whose request was answered.
    pub(super) fn next(&self, connection: &Connection<'_>, client: &mut Client, keep: bool) -> Next {
        client.stage = Stage::default();
        match keep {
            false => Next::Close,
            true if connection.input().is_empty() => Next::Park,
            true => Next::Again,
        }
    }
}

/// Whether the body of a client that asks first is going to be gathered, so that it takes no place
/// meanwhile.
fn may_gather(head: &Head, in_force: &InForce) -> bool {
    let room = Connection::INPUT_LIMIT.saturating_sub(head.length) as u64;
    let most = room.max(in_force.http.buffer_body);
    head.expects_continue && head.framing.length().is_none_or(|length| length <= most)
}

fn forwarded<'a>(
    connection: &Connection<'_>,
    client: &Client,
    framing: Framing,
    in_force: &'a InForce,
) -> Forwarded<'a> {
    Forwarded {
        client: client.ip,
        proto: if connection.is_encrypted() { "https" } else { "http" },
        trusted: false,
        arrived_us: epoch_us(),
        keep_underscores: in_force.http.keep_underscores,
        pass_expect: false,
        pass_upgrade: true,
        framing,
        host: &in_force.config.upstreams[0].name,
    }
}

/// How much of a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Whole,
    /// The client was told to send it, where it asks first.
    Part {
        was_told: bool,
    },
}

/// However large a body may be that is gathered, and however slow its client.
const BUFFERED_WITHIN: Duration = Duration::from_secs(3600);

/// What tells a client that asked first to send its body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn epoch_us() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}
