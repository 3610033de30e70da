//! What comes, and what serves it: the settings of one run. It knows no gate, and nothing happens in it.

/// What requests come.
#[derive(Clone, Copy)]
pub(super) enum Load {
    /// At random moments, so many times what can be served.
    Poisson(f64),
    /// At random moments, so many times for so many milliseconds of each period, and so few in the rest of
    /// it that on average they are as many times as the mean says.
    Bursts { times: f64, on: f64, period: f64, mean: f64 },
    /// From half of what can be served to this and back, between these milliseconds.
    Step { times: f64, from: f64, to: f64 },
    /// So many clients, each of which comes again at once.
    Closed(usize),
    /// So many such clients from this millisecond on, and ten times what can be served from one to
    /// another.
    Pulse { closed_from: f64, clients: usize, from: f64, to: f64 },
}

#[derive(Clone, Copy)]
pub(super) struct Scene {
    pub(super) load: Load,
    pub(super) workers: usize,
    /// CPUs that the workers share; none where requests block.
    pub(super) cpus: Option<f64>,
    pub(super) service_ms: f64,
    /// How long clients wait. When they give up, it can be seen.
    pub(super) patience_ms: f64,
    /// The share of the requests that come over kept connections.
    pub(super) kept: f64,
    /// There is no acceptor: who is refused hears it at once, and who has gone leaves the line.
    pub(super) balancer: bool,
    pub(super) time_ms: f64,
    /// What happens before is not counted.
    pub(super) skip_ms: f64,
}

impl Scene {
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            workers: 2,
            cpus: Some(1.0),
            service_ms: 1.0,
            patience_ms: 500.0,
            kept: 0.0,
            balancer: false,
            time_ms: 13_000.0,
            skip_ms: 3_000.0,
        }
    }

    /// Requests that can be served in a millisecond.
    pub(super) fn capacity(&self) -> f64 {
        self.cpus.unwrap_or(self.workers as f64) / self.service_ms
    }

    /// How many come in a millisecond, beside closed loops.
    pub(super) fn rate(&self, at: f64) -> f64 {
        self.capacity()
            * match self.load {
                Load::Poisson(times) => times,
                Load::Bursts { times, on, period, .. } if at % period < on => times,
                Load::Bursts { times, on, period, mean } => (mean * period - times * on) / (period - on),
                Load::Step { times, from, to } => {
                    if at >= from && at < to {
                        times
                    } else {
                        0.5
                    }
                }
                Load::Pulse { from, to, .. } if at >= from && at < to => 10.0,
                Load::Closed(_) | Load::Pulse { .. } => 0.0,
            }
    }

    pub(super) fn highest_rate(&self) -> f64 {
        let times: f64 = match self.load {
            Load::Poisson(times) | Load::Bursts { times, .. } | Load::Step { times, .. } => times,
            Load::Pulse { .. } => 10.0,
            Load::Closed(_) => 0.0,
        };
        self.capacity() * times.max(1.0)
    }
}
