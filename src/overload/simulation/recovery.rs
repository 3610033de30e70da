//! Scenes of loads that change, or that wait for their replies, judged by who is refused without need.
//! They do not know how that is avoided.

use super::{
    scene::{Load, Scene},
    world::World,
};

#[test]
fn a_closed_loop_is_never_refused() {
    for clients in [8, 16, 64, 128, 256] {
        for workers in [1, 2, 4] {
            for kept in [0.0, 0.5, 1.0] {
                let world = World::run(Scene { workers, kept, ..Scene::new(Load::Closed(clients)) });
                assert_eq!(world.refused_after(0.0), 0, "{clients} clients, {workers} workers, {kept} kept");
            }
        }
    }
}

#[test]
fn after_an_overload_a_closed_loop_that_retries_at_once_is_not_refused() {
    // It comes during the overload, or was there for long before; requests of 1 ms and of 10 ms.
    for (clients, service_ms) in [(64, 1.0), (128, 1.0), (256, 1.0), (64, 10.0)] {
        for (closed_from, from) in [(3000.0, 0.0), (0.0, 30_000.0)] {
            let to = from + 5000.0;
            let load = Load::Pulse { closed_from, clients, from, to };
            let cpus = if service_ms > 1.0 { None } else { Some(1.0) };
            let time_ms = to + 6000.0;
            let world = World::run(Scene { service_ms, cpus, time_ms, ..Scene::new(load) });
            assert!(world.refused_after(0.0) > 0);
            let last = world.refused.last().map_or(0.0, |at| at - to);
            println!(
                "{clients} clients, {service_ms} ms, since {closed_from}: last refusal after {last:.0} ms"
            );
            assert!(last < 3000.0, "{clients} clients, {service_ms} ms, since {closed_from}: {last}");
        }
    }
}

#[test]
fn bursts_are_served() {
    // Of the last no more than 0.706 can be served in time.
    for (times, on, period, share) in
        [(5.0, 50.0, 1000.0, 1.0), (10.0, 20.0, 1000.0, 1.0), (5.0, 200.0, 2000.0, 0.6)]
    {
        let load = Load::Bursts { times, on, period, mean: 0.7 };
        let world = World::run(Scene { time_ms: 33_000.0, ..Scene::new(load) });
        println!("bursts of {times}x for {on} ms: {:.3}", world.share());
        assert!(world.share() >= share - 0.002, "{times}x for {on} ms: {}", world.share());
        assert!(share < 1.0 || world.refused.is_empty(), "{times}x for {on} ms");
    }
}

#[test]
fn an_overload_is_over_when_it_is_over() {
    for times in [2.0, 10.0] {
        let load = Load::Step { times, from: 3000.0, to: 9000.0 };
        let world = World::run(Scene { skip_ms: 0.0, time_ms: 12_000.0, ..Scene::new(load) });
        assert_eq!(world.refused_after(9100.0), 0, "{times}x");
        // Its onset as well: nobody waits for long any more.
        let later = world.good.iter().filter(|(at, _)| (5000.0..9000.0).contains(at));
        let slow = later.clone().filter(|(_, took)| *took > 25.0).count();
        assert!(slow * 100 <= later.count(), "{times}x: {slow}");
    }
}
