//! Programs that answer over HTTP, by CGI.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use overfall::{
    Handle,
    apps::{Program, cgi},
};

use crate::{
    program::alive,
    support::{BRIEF, PATIENCE, await_that, builder, connect, exchange, reset_on_close, tell},
    temporary::TempDir,
    tls::{Identity, dial},
};

fn serve(builder: overfall::Builder, script: &str) -> Handle {
    builder.serve_handler(cgi(Program::new("sh").arg("-c").arg(script))).expect("it serves")
}

/// The reply to a request on a connection that is closed after it.
fn ask(addr: SocketAddr, request: &str) -> String {
    let (line, rest) = request.split_once("\r\n").unwrap_or((request, "\r\n"));
    let request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rest}");
    let reply = String::from_utf8_lossy(&exchange(addr, request.as_bytes()).expect("a reply")).into_owned();
    reply.lines().filter(|line| !line.starts_with("Date: ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_script_answers_as_rfc_3875_has_it() {
    let script = r#"
        case "$PATH_INFO" in
        /plain) printf 'Content-Type: text/plain\n\nhello\n' ;;
        /sized) printf 'Content-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n' ;;
        /none) printf 'Status: 404 Not here\nContent-Type: text/plain\n\nno\n' ;;
        /moved) printf 'Location: http://b/c\n\n' ;;
        /empty) printf 'Status: 204 No Content\nX-Left: out\n\n' ;;
        /env*) printf 'Content-Type: text/plain\n\n'
            echo "$REQUEST_METHOD $PATH_INFO $QUERY_STRING $CONTENT_LENGTH $HTTP_X_A $GATEWAY_INTERFACE" ;;
        /echo) printf 'Content-Type: application/octet-stream\n\n'; echo "$CONTENT_LENGTH"; cat ;;
        esac"#;
    let server = serve(builder(), script);
    let addr = server.local_addr();
    let chunked = "Transfer-Encoding: chunked\n";
    for (request, expected) in [
        (
            "GET /plain",
            format!(
                "HTTP/1.1 200 OK\nContent-Type: text/plain\n{chunked}Connection: close\n\n6\nhello\n\n0\n\n"
            ),
        ),
        ("HEAD /plain", format!("HTTP/1.1 200 OK\nContent-Type: text/plain\n{chunked}Connection: close\n\n")),
        (
            "GET /sized",
            "HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 6\nConnection: close\n\nhello\n"
                .into(),
        ),
        (
            "HEAD /sized",
            "HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 6\nConnection: close\n\n".into(),
        ),
        (
            "GET /none",
            format!(
                "HTTP/1.1 404 Not Found\nContent-Type: text/plain\n{chunked}Connection: close\n\n3\nno\n\n0\n\n"
            ),
        ),
        (
            "GET /moved",
            format!("HTTP/1.1 302 Found\nLocation: http://b/c\n{chunked}Connection: close\n\n0\n\n"),
        ),
        ("GET /empty", "HTTP/1.1 204 No Content\nX-Left: out\nConnection: close\n\n".into()),
    ] {
        let reply = ask(addr, request).replace("\n0006\n", "\n6\n").replace("\n0003\n", "\n3\n");
        assert_eq!(reply, expected, "{request}");
    }
    let reply = ask(addr, "PUT /env%20a?b=c\r\nX-A: d\r\nContent-Length: 0\r\n\r\n");
    assert!(reply.contains("PUT /env a b=c 0 d CGI/1.1"), "{reply}");
    let reply = ask(addr, "POST /echo\r\nContent-Length: 5\r\n\r\nabcde");
    assert!(reply.contains("5\n") && reply.contains("abcde"), "{reply}");
    let reply = ask(addr, "POST /echo\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    assert!(reply.contains("5\n") && reply.contains("abcde"), "{reply}");
    assert_eq!(server.metrics().panics, 0);
}

#[test]
fn a_large_body_goes_in_and_out_at_once() {
    let script = "printf 'Content-Type: a/b\nContent-Length: %s\n\n' $CONTENT_LENGTH; cat";
    let server = serve(builder().workers(4).io_timeout(PATIENCE), script);
    let body: Vec<u8> = (0..5_000_000_u32).map(|at| (at / 5) as u8).collect();
    let head = format!("POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    let reply = exchange(server.local_addr(), &[head.as_bytes(), &body].concat()).expect("a reply");
    assert!(reply.ends_with(&body) && reply.starts_with(b"HTTP/1.1 200 OK\r\n"));
    // One that says much, and hears nothing of what it is told.
    let script = "exec <&-; printf 'Content-Type: a/b\n\n'; head -c 3000000 /dev/zero";
    let server = serve(builder().workers(4), script);
    let head = "POST / HTTP/1.0\r\nContent-Length: 700000\r\n\r\n";
    let reply =
        exchange(server.local_addr(), &[head.as_bytes(), &body[..700_000]].concat()).expect("a reply");
    assert_eq!(reply.iter().filter(|byte| **byte == 0).count(), 3_000_000);
}

#[test]
fn what_a_script_does_wrong_is_told_its_client() {
    for (script, status) in [
        ("echo hello", "502"),
        ("exit 1", "502"),
        ("exec >&-; sleep 1000", "502"),
        ("printf 'Status: many\n\n'", "502"),
        ("head -c 100000 /dev/zero", "502"),
        ("sleep 1000", "504"),
        ("printf 'Content-Type: a/b\n'; sleep 1000", "504"),
    ] {
        let server = serve(builder().io_timeout(BRIEF), script);
        let reply = ask(server.local_addr(), "GET /");
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{script}: {reply}");
    }
    // Where a part was sent already, it does not pass for the whole.
    for script in [
        "printf 'Content-Type: a/b\n\npart'; sleep 1000",
        "printf 'Content-Type: a/b\nContent-Length: 10\n\npart'",
        "printf 'Content-Type: a/b\n\npart'; kill -SEGV $$",
    ] {
        let server = serve(builder().io_timeout(2 * BRIEF), script);
        let mut stream = connect(server.local_addr());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.contains("part") && !reply.ends_with("0\r\n\r\n"), "{reply}");
    }
}

#[test]
fn a_script_is_not_ended_before_it_has_done_what_it_does() {
    let dir = TempDir::new("done");
    let path = dir.path().display();
    let script = format!(
        "printf 'Content-Type: a/b\nContent-Length: 2\n\nhi'; exec >&-; sleep 0.2; echo $REQUEST_METHOD >> {path}/done"
    );
    let server = serve(builder(), &script);
    for method in ["GET", "HEAD"] {
        let reply = ask(server.local_addr(), &format!("{method} /"));
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }
    let done = || std::fs::read_to_string(dir.path().join("done")).unwrap_or_default();
    await_that("both are done", || done() == "GET\nHEAD\n");
}

#[test]
fn what_is_for_nobody_is_heard_out_for_so_long_and_holds_no_worker_longer() {
    let script = "printf 'Content-Type: a/b\nContent-Length: 2\n\n'; while :; do echo tick; sleep 0.01; done";
    let server = serve(builder().workers(1).io_timeout(2 * BRIEF), script);
    for method in ["HEAD", "GET"] {
        let reply = ask(server.local_addr(), &format!("{method} /"));
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        await_that("the worker is free", || server.metrics().busy_workers == 0);
    }
}

#[test]
fn a_script_is_killed_when_its_client_has_reset_the_connection() {
    let dir = TempDir::new("reset");
    let script = format!("echo $$ > {}/$$; exec sleep 1000", dir.path().display());
    let server = serve(builder().workers(1), &script);
    let client = connect(server.local_addr());
    tell(&client, "GET / HTTP/1.1\r\nHost: a\r\n\r");
    await_that("it runs", || alive(dir.path()) == 1);
    reset_on_close(&client);
    drop(client);
    await_that("it is gone", || alive(dir.path()) == 0);
    await_that("its worker is free", || server.metrics().busy_workers == 0);
}

#[test]
fn no_more_programs_run_than_there_are_workers_however_slow_the_clients_are() {
    let script = "printf 'Content-Type: a/b\n\n'; head -c 20000000 /dev/zero";
    let server = serve(builder().workers(1).io_timeout(10 * PATIENCE), script);
    let (slow, next) = (connect(server.local_addr()), connect(server.local_addr()));
    tell(&slow, "GET / HTTP/1.1\r\nHost: a\r\n\r");
    await_that("it has begun", || slow.peek(&mut [0; 1]).is_ok_and(|length| length > 0));
    tell(&next, "GET / HTTP/1.1\r\nHost: a\r\n\r");
    std::thread::sleep(3 * BRIEF);
    assert_eq!(server.metrics().busy_workers, 1);
    next.set_nonblocking(true).expect("it is there");
    assert!(next.peek(&mut [0; 1]).is_err());
    [slow, next].iter().for_each(reset_on_close);
}

#[test]
fn a_script_knows_that_its_client_encrypts() {
    let identity = Identity::new("cgi");
    let script = "printf 'Content-Type: text/plain\n\n'; echo \"https is $HTTPS\"";
    let server = serve(builder().tls(identity.tls()), script);
    let mut stream = dial(&identity.client(&[]), server.local_addr());
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.ends_with("https is on\n"), "{reply}");
}

#[test]
fn a_path_that_no_program_can_be_told_is_bad() {
    let server = serve(builder(), "printf 'Content-Type: text/plain\n\nyes'");
    assert!(ask(server.local_addr(), "GET /%00").starts_with("HTTP/1.1 400 "));
}
