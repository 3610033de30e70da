//! Running out of what the system gives.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::*;

/// Without descriptors newcomers wait, those that are in are served, and it recovers by itself.
#[test]
fn descriptors_are_exhausted_and_given_back() {
    for model in ["pool", "spawn"] {
        let mut served = serve(&["--app", "echo", "--workers", "2", "--model", model]);
        let kept = connect(served.addr);
        assert_eq!(ask(&kept, "before"), "before");
        // Lower than what is in use already: nothing more can be opened.
        let limit = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
        let old = prlimit(Some(served.pid()), Resource::Nofile, limit).unwrap();
        let newcomer = connect(served.addr);
        tell(&newcomer, "hello");
        while served.counter("accept_errors_exhausted") == 0 {}
        assert_eq!(ask(&kept, "meanwhile"), "meanwhile");
        prlimit(Some(served.pid()), Resource::Nofile, old).unwrap();
        assert_eq!(hear(&newcomer), "hello");
    }
}

#[test]
fn a_busy_port_is_named() {
    let served = serve(&[]);
    let addr = served.addr.to_string();
    let output = run(&["serve", "--listen", &addr]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let expected = format!("error: cannot listen on {addr}: Address already in use (os error 98)\n");
    assert!(text.ends_with(&expected), "{text}");
}
