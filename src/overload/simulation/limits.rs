//! Upstreams of which nobody has said what they can do, judged by what is answered in time. They do not
//! know how that is found.

use super::{
    proxy::{Clients, Proxy, Scene, Slow},
    upstream::Work,
};
use crate::overload::Limit;

struct Model {
    name: &'static str,
    workers: usize,
    cores: f64,
    work: Work,
    slow: Slow,
    /// By hand.
    best: usize,
}

const UNBOUNDED: usize = usize::MAX;
const NONE: f64 = f64::INFINITY;

const MODELS: [Model; 8] = [
    Model {
        name: "Go, 1 core, 1 ms",
        workers: UNBOUNDED,
        cores: 1.0,
        work: Work::Always(1.0),
        slow: Slow::Never,
        best: 2,
    },
    Model {
        name: "gunicorn, 4 workers, 1 core, 10 ms",
        workers: 4,
        cores: 1.0,
        work: Work::Always(10.0),
        slow: Slow::Never,
        best: 2,
    },
    Model {
        name: "Puma, 16 threads wait for 50 ms",
        workers: 16,
        cores: NONE,
        work: Work::Waiting(50.0),
        slow: Slow::Never,
        best: 16,
    },
    Model {
        name: "mix of 2 and 100 ms, 4 cores",
        workers: 4,
        cores: 4.0,
        work: Work::Mixed(2.0, 100.0),
        slow: Slow::Never,
        best: 4,
    },
    Model {
        name: "heavy, 2 workers, 60 ms",
        workers: 2,
        cores: 2.0,
        work: Work::Always(60.0),
        slow: Slow::Never,
        best: 2,
    },
    Model {
        name: "wide, 256 threads wait for 50 ms",
        workers: 256,
        cores: NONE,
        work: Work::Waiting(50.0),
        slow: Slow::Never,
        best: 256,
    },
    Model {
        name: "Puma, 4 times slower until 17 s",
        workers: 16,
        cores: NONE,
        work: Work::Waiting(50.0),
        slow: Slow::Until(17.0),
        best: 16,
    },
    Model {
        name: "Puma, 4 times slower from 15 s",
        workers: 16,
        cores: NONE,
        work: Work::Waiting(50.0),
        slow: Slow::From(15.0),
        best: 16,
    },
];

/// Requests that can be served in a second.
fn capacity(m: &Model) -> f64 {
    m.cores.min(m.workers as f64) / m.work.mean() * 1e3
}

#[test]
fn explore() {
    let fixed = std::env::var("FIXED").is_ok();
    let seeds: u64 = std::env::var("SEEDS").map_or(3, |s| s.parse().unwrap());
    for m in &MODELS {
        println!("{}", m.name);
        for load in [0.8, 2.0, 10.0] {
            let (skip, cap, offered) = match m.slow {
                Slow::Never => (5.0, capacity(m), capacity(m)),
                Slow::Until(_) => (17.0, capacity(m), capacity(m)),
                Slow::From(_) => (17.0, capacity(m) / 4.0, capacity(m) / 4.0),
            };
            let (mut g, mut lo, mut p, mut rf, mut lm) = (0.0, 1e9_f64, 0.0, 0.0, 0.0);
            for seed in 1..=seeds {
                let x = Proxy::run(
                    Scene {
                        workers: m.workers,
                        cores: m.cores,
                        work: m.work,
                        clients: Clients::Open(offered * load),
                        slow: m.slow,
                        seconds: 35.0,
                        skip,
                        seed,
                    },
                    |now| if fixed { Limit::fixed(m.best) } else { Limit::found(now) },
                );
                let most = (cap * (35.0 - skip)).min(x.offered as f64);
                let share = 100.0 * x.good.len() as f64 / most;
                g += share / seeds as f64;
                lo = lo.min(share);
                let mut took: Vec<_> = x.good.iter().map(|g| g.1).collect();
                took.sort_by(f64::total_cmp);
                p += took.get(took.len() * 99 / 100).copied().unwrap_or(0.0) / seeds as f64;
                rf += 100.0 * x.refused as f64 / x.offered as f64 / seeds as f64;
                let mut l = x.limits[(skip * 10.0) as usize..].to_vec();
                l.sort();
                lm += l[l.len() / 2] as f64 / seeds as f64;
            }
            print!("| {load:4} {g:5.1} ({lo:5.1}) p99 {p:4.0} ref {rf:4.1} lim {lm:5.1} ");
        }
        println!();
    }
}
