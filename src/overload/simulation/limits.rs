//! Upstreams of which nobody has said what they can do, judged by what is answered in time. They do not
//! know how that is found.

use super::{
    proxy::{Clients, Proxy, Scene, Slow},
    upstream::Work,
};
use crate::overload::Limit;

/// Every thread waits for something else than a core.
const WAITING: f64 = f64::INFINITY;

/// Behind a proxy, once it was there for a while.
const SCENE: Scene = Scene {
    workers: 16,
    cores: WAITING,
    work: Work::Waiting(50.0),
    clients: Clients::Open(0.0),
    slow: Slow::Never,
    seconds: 35.0,
    skip: 5.0,
    seed: 1,
};

const GO: Scene = Scene { workers: usize::MAX, cores: 1.0, work: Work::Always(1.0), ..SCENE };
const GUNICORN: Scene = Scene { workers: 4, cores: 1.0, work: Work::Always(10.0), ..SCENE };
const MIX: Scene = Scene { workers: 4, cores: 4.0, work: Work::Mixed(2.0, 100.0), ..SCENE };
const HEAVY: Scene = Scene { workers: 2, cores: 2.0, work: Work::Always(60.0), ..SCENE };
/// As many come in a quarter of the time.
const WIDE: Scene = Scene { workers: 256, seconds: 13.0, ..SCENE };
const RECOVERS: Scene = Scene { slow: Slow::Until(17.0), skip: 17.0, ..SCENE };
const BECOMES_SLOW: Scene = Scene { slow: Slow::From(15.0), skip: 17.0, ..SCENE };

/// Requests that can be served in a second, when it counts.
fn capacity(scene: &Scene) -> f64 {
    scene.cores.min(scene.workers as f64) / scene.work.mean() * 1e3 / scene.slow.at(scene.seconds)
}

fn run(scene: Scene, times: f64, seed: u64) -> Proxy {
    let clients = Clients::Open(capacity(&scene) * times);
    Proxy::run(Scene { clients, seed, ..scene }, Limit::found)
}

/// The mean of some runs: good ones as a share of what is possible, the 99th percentile of how long they
/// took, in milliseconds, and the share that was refused.
fn figures(scene: Scene, times: f64) -> (f64, f64, f64) {
    let seeds = 3;
    let of = |seed| {
        let proxy = run(scene, times, seed);
        let possible = (capacity(&scene) * (scene.seconds - scene.skip)).min(proxy.offered as f64);
        let mut took: Vec<_> = proxy.good.iter().map(|(_, took)| *took).collect();
        took.sort_by(f64::total_cmp);
        let p99 = took[took.len() * 99 / 100];
        (proxy.good.len() as f64 / possible, p99, proxy.refused as f64 / proxy.offered as f64)
    };
    let sum = (1..=seeds).map(of).fold((0.0, 0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    let n = seeds as f64;
    (sum.0 / n, sum.1 / n, sum.2 / n)
}

#[test]
fn goodput_is_kept_without_a_number() {
    // The least share of what is possible, in overload.
    let cases: [(&str, Scene, f64); 8] = [
        ("Go, 1 core, 1 ms", GO, 0.97),
        ("gunicorn, 4 workers, 1 core, 10 ms", GUNICORN, 0.97),
        ("Puma, 16 threads wait for 50 ms", SCENE, 0.9),
        ("mix of 2 and 100 ms on 4 cores", MIX, 0.9),
        ("heavy, 2 workers, 60 ms", HEAVY, 0.95),
        ("wide, 256 threads wait for 50 ms", WIDE, 0.9),
        ("Puma, its database slow until 17 s", RECOVERS, 0.9),
        ("Puma, its database slow from 15 s", BECOMES_SLOW, 0.55),
    ];
    for (what, scene, least) in cases {
        for times in [0.8, 2.0, 10.0] {
            let (share, p99, refused) = figures(scene, times);
            println!(
                "{what:36} {times:4}x: {:5.1} %, p99 {p99:3.0} ms, refused {:4.1} %",
                share * 1e2,
                refused * 1e2
            );
            let (least, most) = if times < 1.0 { (least.min(0.85), 0.005) } else { (least, 1.0) };
            assert!(share >= least, "{what} at {times}x: {share}");
            assert!(refused <= most, "{what} at {times}x: {refused}");
        }
    }
}

#[test]
fn a_limit_is_found_within_seconds() {
    // The overload begins with the proxy, or the database recovers at 17 s; and in the two seconds from
    // this one on so much is answered in time.
    let cases = [
        ("Go", GO, 2.0, 0.95),
        ("gunicorn", GUNICORN, 2.0, 0.9),
        ("Puma", SCENE, 2.0, 0.85),
        ("wide", WIDE, 2.0, 0.85),
        ("heavy", HEAVY, 5.0, 0.9),
        ("recovered", RECOVERS, 20.0, 0.85),
    ];
    for (what, scene, from, least) in cases {
        let share = |seed| {
            let scene = Scene { skip: 0.0, seconds: from + 3.0, ..scene };
            let good = run(scene, 2.0, seed).good;
            let then = (from * 1e3)..(from * 1e3 + 2000.0);
            good.iter().filter(|(at, _)| then.contains(at)).count() as f64 / capacity(&scene) / 2.0
        };
        let mean = (1..=5).map(share).sum::<f64>() / 5.0;
        println!("{what}: {mean:.3}");
        assert!(mean >= least, "{what}: {mean}");
    }
}

#[test]
fn a_closed_loop_is_not_refused_while_its_wait_is_bearable() {
    for clients in [8, 16, 64, 128, 256] {
        for (what, scene) in [("Go", GO), ("Puma", SCENE), ("wide", WIDE)] {
            // More than the tolerance is not bearable.
            if clients as f64 / capacity(&scene) > 0.4 {
                continue;
            }
            // All come at once before anything is known of the upstream.
            let scene = Scene { clients: Clients::Closed(clients), seconds: 9.0, skip: 1.0, ..scene };
            let refused = Proxy::run(scene, Limit::found).refused;
            assert_eq!(refused, 0, "{what}, {clients} clients");
        }
    }
}
