//! Scenes of steady loads, judged by what is answered in time. They do not know how that is achieved.

use super::{
    scene::{Load, Scene},
    world::World,
};

#[test]
fn goodput_is_kept_around_and_beyond_the_capacity() {
    let cases = [
        (0.5, 1.0, 10.0),
        (0.95, 0.999, 100.0),
        (1.0, 0.985, 500.0),
        (1.05, 0.985, 500.0),
        // The line is let grow once to see that it is an overload.
        (1.2, 0.98, 500.0),
        (1.5, 0.97, 300.0),
        (2.0, 0.97, 25.0),
        (10.0, 0.97, 25.0),
        (15.0, 0.97, 25.0),
    ];
    for (times, share, p99) in cases {
        let world = World::run(Scene::new(Load::Poisson(times)));
        println!("{times}x: {:.3}, p99 {:.1} ms", world.share(), world.p99());
        assert!(world.share() >= share, "{times}x: {}", world.share());
        assert!(world.p99() <= p99, "{times}x: {}", world.p99());
    }
}

#[test]
fn impatient_clients_are_learnt_from() {
    let world = World::run(Scene { patience_ms: 100.0, ..Scene::new(Load::Poisson(2.0)) });
    println!("patience 100 ms: {:.3}", world.share());
    assert!(world.share() >= 0.95, "{}", world.share());
}

#[test]
fn quick_and_slow_handlers_keep_their_goodput_too() {
    let quick = World::run(Scene { service_ms: 0.2, ..Scene::new(Load::Poisson(4.0)) });
    let blocking = Scene { workers: 16, cpus: None, service_ms: 20.0, ..Scene::new(Load::Poisson(10.0)) };
    for (what, world) in
        [("200 us at 4x", quick), ("16 workers block for 20 ms at 10x", World::run(blocking))]
    {
        println!("{what}: {:.3}, p99 {:.1} ms", world.share(), world.p99());
        assert!(world.share() >= 0.95, "{what}: {}", world.share());
    }
}

#[test]
fn a_balancers_line_keeps_its_goodput() {
    for times in [0.9, 1.2, 2.0, 10.0] {
        let scene = Scene {
            workers: 4,
            cpus: None,
            service_ms: 20.0,
            balancer: true,
            ..Scene::new(Load::Poisson(times))
        };
        let world = World::run(scene);
        println!("balancer {times}x: {:.3}, p99 {:.1} ms", world.share(), world.p99());
        assert!(world.share() >= 0.97, "{times}x: {}", world.share());
        assert!(times != 2.0 || world.p99() <= 150.0, "{}", world.p99());
    }
}

#[test]
fn kept_requests_in_overload() {
    // Refusing each of them costs CPU, and no backlog keeps them away.
    for (kept, times, share) in [(0.5, 2.0, 0.97), (1.0, 2.0, 0.97), (0.5, 10.0, 0.9), (1.0, 10.0, 0.85)] {
        let world = World::run(Scene { kept, ..Scene::new(Load::Poisson(times)) });
        println!("{kept} kept at {times}x: {:.3}", world.share());
        assert!(world.share() >= share, "{kept} kept at {times}x: {}", world.share());
    }
}
