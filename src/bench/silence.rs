//! Silent connections: opened, counted, and what they cost the server. It does not know what the active
//! ones meanwhile achieve.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{
    arm::Running,
    client::{self, Load, Loop},
    plan::{ACTIVE, Plan, Scenario, WARM_UP},
    results::Silent,
    sample::Sample,
};

/// Longer than it takes until the kernel tries again where a full backlog dropped the first.
const CONNECT_PATIENCE: Duration = Duration::from_millis(1500);
/// A burst of thousands would measure the backlog and not the connections.
const BURST: usize = 50;
const BURST_PAUSE: Duration = Duration::from_millis(2);
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// Connections that say nothing, open as long as this is kept.
pub(super) struct Silence {
    _streams: Vec<TcpStream>,
    pub(super) cost: Silent,
}

impl Silence {
    pub(super) fn open(plan: &Plan, server: &Running, stop: &dyn Fn() -> bool) -> io::Result<Self> {
        // What the active clients make the server allocate is not to be laid to the silent ones.
        let warm = Load {
            warm_up: Duration::ZERO,
            duration: WARM_UP,
            ..plan.load(Scenario::Idle, server.addr, Loop::Closed(ACTIVE))
        };
        let cold = look(server);
        client::run(warm, stop, &mut |_| {})?;
        // When it has closed their connections, which would be counted as silent ones that are missing.
        let before = settle(server, |sample| sample.descriptors <= cold.descriptors);
        let streams = connect(server.addr, plan.idle, stop);
        let after = settle(server, |sample| sample.descriptors >= before.descriptors + streams.len() as u64);
        Ok(Self { _streams: streams, cost: cost(&before, &after) })
    }
}

/// Opens so many connections, or as many as the server lets in.
fn connect(addr: SocketAddr, count: usize, stop: &dyn Fn() -> bool) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count && !stop() {
        // A server that lets no more in leaves them hanging.
        match TcpStream::connect_timeout(&addr, CONNECT_PATIENCE) {
            Ok(stream) => streams.push(stream),
            Err(_) => break,
        }
        if streams.len() % BURST == 0 {
            thread::sleep(BURST_PAUSE);
        }
    }
    streams
}

/// The server when it is as it should be, or after a while as it is.
fn settle(server: &Running, settled: impl Fn(&Sample) -> bool) -> Sample {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    loop {
        let sample = look(server);
        if settled(&sample) || Instant::now() >= deadline {
            return sample;
        }
        thread::sleep(SETTLE_INTERVAL);
    }
}

fn look(server: &Running) -> Sample {
    Sample::of_group(server.group(), Instant::now())
}

fn cost(before: &Sample, after: &Sample) -> Silent {
    let accepted = after.descriptors.saturating_sub(before.descriptors) as usize;
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / accepted.max(1) as f64;
    Silent {
        opened: accepted,
        bytes_per_connection: each(after.private_bytes, before.private_bytes),
        threads_per_connection: each(after.threads, before.threads),
    }
}
