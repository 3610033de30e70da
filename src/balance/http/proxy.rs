//! The handler: each connection gathers a request, has it served by an upstream, and goes on with the next.
//! It knows neither how a place is found nor what passes between the two sides.

use std::{
    borrow::Cow,
    io::{self, Write},
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};

use super::{
    access::{AccessLog, Record, Why},
    exchange::{Asked, Exchange, Step},
    refusal,
    request::{self, Forwarded},
    retries::Retries,
    spares::Spares,
    tunnel::Tunnel,
    upload,
};
use crate::{
    balance::{
        config::{Config, HttpConfig},
        flow::Pipes,
        tried::Tried,
        upstreams::Upstreams,
    },
    http::{
        arrival::{self, Arrival},
        codec::head::{Head, asks_for_head, empty_lines},
        progress::Progress,
        taken::take_head,
    },
    session::{
        connection::Connection,
        handler::{Handler, Next, Refusal},
    },
};

pub(in crate::balance) struct Proxy {
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) config: Config,
    pub(super) http: HttpConfig,
    pub(super) spares: Arc<Spares>,
    pub(super) retries: Retries,
    log: Option<Arc<AccessLog>>,
    busy_reply: Vec<u8>,
    pub(super) pipes: Pipes,
}

impl Proxy {
    pub(in crate::balance) fn new(
        upstreams: Arc<Upstreams>,
        config: Config,
        http: HttpConfig,
        spares: Arc<Spares>,
        log: Option<Arc<AccessLog>>,
        pipes: Pipes,
    ) -> Self {
        let busy_reply =
            if config.busy_reply.is_empty() { refusal::at_the_door() } else { config.busy_reply.clone() };
        let retries = Retries::new(Instant::now());
        Self { upstreams, config, http, spares, retries, log, busy_reply, pipes }
    }
}

/// One client.
#[derive(Debug)]
pub(in crate::balance) struct Client {
    ip: IpAddr,
    /// It has made a request before.
    has_asked: bool,
    pub(super) stage: Stage,
}

/// What is under way.
#[derive(Debug)]
pub(super) enum Stage {
    /// A request is gathered in the input.
    Gathering(Progress),
    Exchange(Box<Exchange>),
    Tunnel(Box<Tunnel>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Gathering(Progress::default())
    }
}

impl Handler for Proxy {
    type State = Client;

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Client> {
        let ip = connection.peer_addr()?.ip().to_canonical();
        Ok(Client { ip, has_asked: false, stage: Stage::default() })
    }

    fn ready(&self, connection: &mut Connection<'_>, client: &mut Client) -> io::Result<Next> {
        loop {
            let next = match mem::take(&mut client.stage) {
                Stage::Gathering(progress) => self.gather(connection, client, progress)?,
                Stage::Exchange(exchange) => self.go_on(connection, client, exchange)?,
                Stage::Tunnel(tunnel) => Some(tunnel.go_on(connection, client, &self.pipes)?),
            };
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, client: &mut Client) -> io::Result<Next> {
        match mem::take(&mut client.stage) {
            Stage::Gathering(_) => self.gathered_too_slowly(connection, client),
            Stage::Exchange(exchange) => match self.took_too_long(connection, client, exchange)? {
                Some(next) => Ok(next),
                None => self.ready(connection, client),
            },
            Stage::Tunnel(_) => Ok(Next::Close),
        }
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.busy_reply.clone().into()
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
            Ok(Arrival::Whole(head)) => self.begin(connection, client, head, Body::Whole),
            // It can never be whole.
            Ok(Arrival::Head(_)) if connection.ended() => {
                self.refuse_malformed(connection, client, StatusCode::BAD_REQUEST).map(Some)
            }
            Ok(Arrival::Head(head)) if !progress.was_told() && may_gather(&head) => {
                connection.write_all(CONTINUE)?;
                progress.tell();
                // It may be there already.
                self.gather(connection, client, progress)
            }
            Ok(Arrival::Head(head)) => {
                let body = Body::Part { was_told: progress.was_told() };
                self.begin(connection, client, head, body)
            }
            Err(status) => self.refuse_malformed(connection, client, status).map(Some),
        }
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
        head: Head,
        body: Body,
    ) -> io::Result<Option<Next>> {
        let is_whole = body == Body::Whole;
        let now = Instant::now();
        let text = take_head(connection, &head);
        let forwarded = Forwarded {
            client: client.ip,
            proto: "http",
            trusted: false,
            arrived_us: epoch_us(),
            keep_underscores: self.http.keep_underscores,
            pass_expect: body == Body::Part { was_told: false },
            pass_upgrade: true,
            framing: head.framing,
            host: &self.config.upstreams[0].name,
        };
        let (request, body) = upload::begin(connection, &text, &head, is_whole, &forwarded, now)?;
        let asked = Asked::new(&head, request::asks_for_upgrade(&text, &head), !client.has_asked);
        client.has_asked = true;
        self.retries.request();
        client.stage = Stage::Exchange(Box::new(Exchange {
            asked,
            came: now,
            request,
            upload: body,
            tried: Tried::default(),
            is_retry: false,
            is_abandoned: false,
            record: self.log.as_ref().map(|log| Record::new(log, client.ip, &head)),
            step: Step::Placing,
        }));
        Ok(None)
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
            Step::Connecting { lease, attempt } => {
                self.await_connection(connection, client, exchange, lease, attempt)
            }
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
        let keep = exchange.asked.persistent && exchange.is_whole() && !connection.draining();
        if !exchange.is_whole() {
            connection.expect_more();
        }
        refusal::refuse(connection, &exchange.asked, status, keep)?;
        Ok(Some(self.next(connection, client, keep)))
    }

    /// Tells a client why what it has sent is no request that can be served.
    fn refuse_malformed(
        &self,
        connection: &mut Connection<'_>,
        client: &Client,
        status: StatusCode,
    ) -> io::Result<Next> {
        connection.expect_more();
        connection.context().counters.malformed.count();
        if let Some(log) = &self.log {
            drop(Record::malformed(log, client.ip, status));
        }
        let method = if asks_for_head(connection.input()) { Method::HEAD } else { Method::GET };
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

/// How much of a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Whole,
    /// The client was told to send it, where it asks first.
    Part {
        was_told: bool,
    },
}

/// What tells a client that asked first to send its body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether the body of a client that asks first is worth gathering, so that it takes no place meanwhile.
fn may_gather(head: &Head) -> bool {
    let room = Connection::INPUT_LIMIT.saturating_sub(head.length) as u64;
    head.expects_continue && head.framing.length().is_none_or(|length| length <= room)
}

fn epoch_us() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}
