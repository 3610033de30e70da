//! What a balancer is told: its upstreams, and how it works. It knows no running balancer.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use http::HeaderName;

use super::selection::Policy;
use crate::{
    error::{Error, Result},
    net::preface::ProxyVersion,
    overload::Limit,
    sys::names,
};

/// One upstream, as it is given: `ADDR` or `ADDR=WEIGHT`.
///
/// ```
/// use overfall::balance::UpstreamConfig;
///
/// let upstream: UpstreamConfig = "app:8888=3".parse()?;
/// assert_eq!(upstream, UpstreamConfig { name: "app:8888".to_owned(), weight: 3 });
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its address, HOST:PORT. A name is resolved every
    /// [`resolve_interval`](Config::resolve_interval), and each of its addresses is an upstream of its own.
    pub name: String,
    /// Its share of the connections beside the others', 1 to 1,000; each address of a name has it.
    pub weight: u32,
}

impl FromStr for UpstreamConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
        let weight = weight.parse().ok().filter(|weight| WEIGHTS.contains(weight));
        let Some(weight) = weight else { return Err("the weight after the = may be 1 to 1000".into()) };
        check_name(name)?;
        Ok(Self { name: name.to_owned(), weight })
    }
}

/// Says what is wrong with what is no `HOST:PORT`.
fn check_name(name: &str) -> Result<(), String> {
    let right = "give HOST:PORT, or HOST:PORT=WEIGHT";
    if name.contains("://") {
        return Err(format!("{name:?} is a URL; {right}, without scheme and path"));
    }
    let Some((host, port)) = name.rsplit_once(':') else {
        return Err(format!("{name:?} has no port; {right}"));
    };
    let in_brackets = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains([':', '[', ']']) && !in_brackets) {
        return Err(format!("{host:?} in {name:?} is no host; {right}, with an IPv6 address in brackets"));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse().is_ok_and(|port: u16| port > 0) {
        return Err(format!("{port:?} in {name:?} is no port; {right}, with a port of 1 to 65535"));
    }
    Ok(())
}

/// Whether it can be asked for as it is.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

const WEIGHTS: RangeInclusive<u32> = 1..=1000;

/// What happens to connections while every upstream is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllDown {
    /// They wait for one to come back, and are refused when that takes too long.
    Refuse,
    /// They are tried at an upstream in spite of it.
    Try,
}

/// How a balancer for HTTP works, beyond one for any protocol.
///
/// ```
/// use overfall::balance::{Config, HttpConfig};
///
/// let http = HttpConfig { limit: Some(4), check_path: Some("/healthz".to_owned()), ..HttpConfig::default() };
/// let config = Config { http: Some(http), upstreams: vec!["127.0.0.1:8888".parse()?], ..Config::default() };
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Requests that one upstream may have at once, at least 1; none means that the limit is found, from
    /// what the upstream answers. Others wait in line, for as long as the server's
    /// [`patience`](crate::Builder::patience) says.
    pub limit: Option<usize>,
    /// How long an upstream may take from getting a request to the head of its reply, 1 ms to 365 days.
    pub upstream_timeout: Duration,
    /// Bodies of up to so many bytes are gathered in memory before their request takes a place at an
    /// upstream, out of 64 MiB for all, so that no slow client holds one; larger ones, those in chunks over
    /// 16 KiB, and what there is no room for, pass through.
    pub buffer_body: u64,
    /// Whether fields whose names have an underscore are passed on. Many services take them for others
    /// (CGI and WSGI make `_` of `-`), so that they are dropped otherwise.
    pub keep_underscores: bool,
    /// The field of a request that names its source, such as `X-Forwarded-For` behind another proxy: of several
    /// values the last, an address (of which IPv6 counts by its /64) or anything else. In an overload each source
    /// has its share. Whoever can reach the balancer can name any source, so that it is for those alone that
    /// are behind a proxy which sets the field. Where there is none, and without this, it is the client's
    /// address.
    pub source_header: Option<HeaderName>,
    /// What checks ask for, such as `/healthz`: an upstream is well that answers with 2xx or 3xx. None means
    /// that checks do as for any protocol.
    pub check_path: Option<String>,
    /// Where a line of JSON is appended for each request: when it came (seconds since 1970), the client's
    /// address, method and target, the status, the bytes of the reply's body, the wait until it was sent to
    /// an upstream and what that took (microseconds), which upstream that was, how often it was tried
    /// again, and why it ended. Lines that the disk does not take in time are dropped and counted.
    pub access_log: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            limit: None,
            upstream_timeout: Duration::from_secs(60),
            buffer_body: 1024 * 1024,
            keep_underscores: false,
            source_header: None,
            check_path: None,
            access_log: None,
        }
    }
}

/// How a balancer works.
///
/// ```no_run
/// use overfall::{Server, balance::{self, Config, Policy}};
///
/// let upstreams = vec!["127.0.0.1:8888".parse()?, "127.0.0.1:8889=2".parse()?];
/// let config = Config { upstreams, policy: Policy::RoundRobin, ..Config::default() };
/// let balancer = balance::serve(Server::builder().bind("127.0.0.1:8000"), config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether HTTP/1.1 is understood, and requests are spread in place of connections; none means any
    /// protocol over TCP.
    pub http: Option<HttpConfig>,
    /// At least one.
    pub upstreams: Vec<UpstreamConfig>,
    /// How often names are resolved again, 1 ms to 365 days. Addresses come and go without a request being
    /// lost; a name that cannot be resolved keeps those that it had, and gets nothing until it has one.
    pub resolve_interval: Duration,
    /// How connections are spread.
    pub policy: Policy,
    /// Connections that one upstream may have at once, those being made included, at least 1; none
    /// means no limit. Others wait in line for a place, for as long as the server's
    /// [`patience`](crate::Builder::patience) says. Over HTTP it is [`HttpConfig::limit`] that counts.
    pub max_connections_per_upstream: Option<usize>,
    /// How long connecting to an upstream may take, 1 ms to 365 days.
    pub connect_timeout: Duration,
    /// Whether each connection to an upstream begins with a line of the PROXY protocol that says who its
    /// client is, and in which version. Over HTTP a connection is then used for requests of one client alone.
    /// Checks say that they speak for nobody (`LOCAL`, or `UNKNOWN` in version 1).
    pub send_proxy: Option<ProxyVersion>,
    /// What happens while every upstream is down.
    pub all_down: AllDown,
    /// How often each upstream is checked, 1 ms to 365 days; a check may take a quarter of it.
    pub check_interval: Duration,
    /// What a check sends; nothing where it is empty.
    pub check_send: Vec<u8>,
    /// What the reply to a check must begin with. With this and nothing to send, a connection is
    /// enough.
    pub check_expect: Option<Vec<u8>>,
    /// Checks in a row that must succeed for an upstream to be up again, at least 1.
    pub rise: u32,
    /// Checks in a row that must fail for it to be down, at least 1; or so many moments of 100 ms in a
    /// row at which connects failed.
    pub fall: u32,
    /// What a refused client is sent; a reset where it is empty.
    pub busy_reply: Vec<u8>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: None,
            upstreams: Vec::new(),
            resolve_interval: Duration::from_secs(5),
            policy: Policy::LeastConnections,
            max_connections_per_upstream: None,
            connect_timeout: Duration::from_secs(2),
            send_proxy: None,
            all_down: AllDown::Refuse,
            check_interval: Duration::from_secs(2),
            check_send: Vec::new(),
            check_expect: None,
            rise: 2,
            fall: 3,
            busy_reply: Vec::new(),
        }
    }
}

impl Config {
    /// Checks all that [`serve`](super::serve) checks before it listens and resolves names.
    ///
    /// # Errors
    ///
    /// A setting is out of its range, or two do not go together.
    pub fn check(&self) -> Result<()> {
        if self.upstreams.is_empty() {
            return Err(Error::upstream("there is no upstream; give one HOST:PORT or more"));
        }
        if let Some(wrong) = self.upstreams.iter().find(|upstream| !WEIGHTS.contains(&upstream.weight)) {
            return Err(Error::upstream(format!(
                "the weight of {} is {}; it may be 1 to 1000",
                wrong.name, wrong.weight
            )));
        }
        let http = self.http.clone().unwrap_or_default();
        let counts = [
            ("limit", http.limit.unwrap_or(1)),
            ("max_connections_per_upstream", self.max_connections_per_upstream.unwrap_or(1)),
            ("rise", self.rise as usize),
            ("fall", self.fall as usize),
        ];
        if let Some((name, value)) = counts.into_iter().find(|&(_, value)| value == 0) {
            return Err(Error::setting(name, value, "1 or more"));
        }
        if let Some(path) = http.check_path.filter(|path| !is_path(path)) {
            return Err(Error::setting("check_path", path, "a path that begins with / and has no blanks"));
        }
        let times = [
            ("resolve_interval", self.resolve_interval),
            ("connect_timeout", self.connect_timeout),
            ("check_interval", self.check_interval),
            ("upstream_timeout", http.upstream_timeout),
        ];
        for (name, time) in times {
            Error::check_time(name, time)?;
        }
        self.literals().map(drop)
    }

    /// How many connections, or requests, one upstream may have at once; none where there is no limit.
    pub(super) fn limit(&self, now: Instant) -> Option<Limit> {
        match &self.http {
            None => self.max_connections_per_upstream.map(Limit::fixed),
            Some(http) => Some(http.limit.map_or_else(|| Limit::found(now), Limit::fixed)),
        }
    }

    /// The upstreams as they are given, with the address of each that is no name.
    pub(super) fn literals(&self) -> Result<Vec<(UpstreamConfig, Option<SocketAddr>)>> {
        let mut all: Vec<(UpstreamConfig, Option<SocketAddr>)> = Vec::new();
        for given in &self.upstreams {
            let name = &given.name;
            check_name(name).map_err(Error::upstream)?;
            let addr = names::literal(name)
                .map_err(|error| Error::upstream(format!("the upstream {name} cannot be found: {error}")))?;
            let is_same = |other: &(UpstreamConfig, Option<SocketAddr>)| {
                other.0.name == *name || (addr.is_some() && other.1 == addr)
            };
            if all.iter().any(is_same) {
                return Err(Error::upstream(format!("the upstream {name} is given twice; give each once")));
            }
            all.push((given.clone(), addr));
        }
        Ok(all)
    }
}
