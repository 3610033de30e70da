//! The baselines that the pool is measured against do the same work.

use crate::support::*;

#[test]
fn every_model_serves_every_app() {
    for model in ["pool", "spawn", "limit"] {
        for (app, reply) in [("hello", "Hello, client!"), ("echo", "ping")] {
            let mut served = serve(&["--model", model, "--app", app, "--workers", "2", "--patience", "30s"]);
            let addr = served.addr;
            for received in all_at_once(50, move |_| exchange(addr, b"ping")) {
                assert_eq!(received.unwrap(), reply.as_bytes());
            }
            served.signal(rustix::process::Signal::TERM);
            let (status, counters) = served.wait();
            assert_eq!(status, Some(0), "{model} {app}");
            assert!(counters.contains("answered                 50\n"), "{model} {app}: {counters}");
        }
    }
}

#[test]
fn spawning_has_no_bound_and_the_limit_has() {
    let spawn = serve(&["--model", "spawn", "--app", "echo", "--workers", "2"]);
    let clients: Vec<_> = (0..20).map(|_| connect(spawn.addr)).collect();
    clients.iter().for_each(|client| assert_eq!(ask(client, "hello"), "hello"));
    assert_eq!(spawn.threads_named("connection"), 20);

    let limit = serve(&["--model", "limit", "--app", "echo", "--workers", "2"]);
    let mut clients: Vec<_> = (0..3).map(|_| connect(limit.addr)).collect();
    clients[..2].iter().for_each(|client| assert_eq!(ask(client, "hello"), "hello"));
    tell(&clients[2], "third");
    assert_eq!(limit.threads_named("connection"), 2);
    // The third gets its turn when one of the others is done.
    drop(clients.remove(0));
    assert_eq!(hear(&clients[1]), "third");
}
