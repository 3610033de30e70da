//! Encrypted listeners, with clients of rustls, openssl and curl.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use overfall::{
    Connection, Next, Tls,
    balance::{self, Config, UpstreamConfig},
    http::{self, Request, Response},
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    support::*,
    temporary::TempDir,
    upstream::{ok, upstream},
};

/// A certificate for `localhost` and its key, in files.
pub(crate) struct Identity {
    directory: TempDir,
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        let identity = Self { directory: TempDir::new(name) };
        identity.renew();
        identity
    }

    /// Has another certificate and another key from now on.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(self.certificate(), made.cert.pem()).expect("a file");
        fs::write(self.key(), made.signing_key.serialize_pem()).expect("a file");
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::from_files(self.certificate(), self.key()).expect("both files")
    }

    /// What trusts the certificate as it is now.
    pub(crate) fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).expect("a certificate")).expect("a root");
        let builder =
            ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn dial(config: &Arc<ClientConfig>, addr: SocketAddr) -> Client {
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
    StreamOwned::new(client, connect(addr))
}

/// Sends a request and gives the head and the body of the reply, which has a length.
fn ask_http(client: &mut Client, request: &str) -> (String, Vec<u8>) {
    client.write_all(request.as_bytes()).expect("it reads");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    client.read_exact(&mut body).expect("a body");
    (head, body)
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

/// Answers with what came, or as many bytes as the path says.
fn serve_http(builder: overfall::Builder) -> overfall::Handle {
    let answer = |request: &Request<'_>| match request.uri().path().strip_prefix("/big/") {
        Some(size) => Response::new(vec![b'x'; size.parse().expect("a number")]),
        None => {
            let mut body = Vec::new();
            let mut reader = request.body();
            reader.read_to_end(&mut body).expect("a body");
            Response::text(format!("{} {}", request.uri().path(), body.len()))
        }
    };
    http::serve(builder, answer).expect("it serves")
}

#[test]
fn requests_are_answered_on_a_kept_connection() {
    let identity = Identity::new("kept");
    let server = serve_http(builder().tls(identity.tls()));
    let config = identity.client(&[b"h2", b"http/1.1"]);
    let mut client = dial(&config, server.local_addr());
    for _ in 0..3 {
        assert_eq!(ask_http(&mut client, GET).1, b"/a 0");
    }
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let upload =
        format!("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n{}", "u".repeat(300_000));
    assert_eq!(ask_http(&mut client, &upload).1, b"/up 300000");
    let (_, body) = ask_http(&mut client, "GET /big/3000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(body.len() == 3_000_000 && body.iter().all(|&byte| byte == b'x'));
    // Its end is told, so that nobody takes a part for the whole.
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut last = String::new();
    client.read_to_string(&mut last).expect("an end that was told");
    assert!(last.ends_with("/ 0"), "{last}");
    assert_eq!(server.metrics().answered, 6);
    assert_eq!(server.metrics().failed, 0);
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    let identity = Identity::new("pipelined");
    let server = serve_http(builder().tls(identity.tls()));
    let mut client = dial(&identity.client(&[]), server.local_addr());
    client.write_all(GET.repeat(1000).as_bytes()).expect("it reads");
    client.write_all(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut replies = String::new();
    client.read_to_string(&mut replies).expect("an end that was told");
    assert_eq!(replies.matches("/a 0").count(), 1000);
    assert!(replies.ends_with("/last 0"));
}

#[test]
fn who_comes_again_resumes() {
    let identity = Identity::new("resumed");
    let server = serve_http(builder().tls(identity.tls()));
    let config = identity.client(&[b"http/1.1"]);
    let kinds = [HandshakeKind::Full, HandshakeKind::Resumed].map(|_| {
        let mut client = dial(&config, server.local_addr());
        ask_http(&mut client, GET);
        client.conn.handshake_kind().expect("it is done")
    });
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[test]
fn a_handshake_that_comes_in_pieces_holds_no_worker() {
    let identity = Identity::new("slow");
    let server = serve_http(builder().workers(1).tls(identity.tls()));
    let config = identity.client(&[]);
    let name = ServerName::try_from("localhost").expect("a name");
    let mut hello = Vec::new();
    let mut slow = ClientConnection::new(Arc::clone(&config), name).expect("a client");
    slow.write_tls(&mut hello).expect("a hello");
    let mut stream = connect(server.local_addr());
    let (last, most) = hello.split_last().expect("bytes");
    for byte in most.chunks(40) {
        stream.write_all(byte).expect("it reads");
        await_that("it was looked at", || has_been_received(&stream));
        // The only worker serves others meanwhile.
        assert_eq!(ask_http(&mut dial(&config, server.local_addr()), GET).1, b"/a 0");
    }
    stream.write_all(&[*last]).expect("it reads");
    assert_eq!(ask_http(&mut StreamOwned::new(slow, stream), GET).1, b"/a 0");
}

#[test]
fn a_handshake_that_does_not_go_on_is_ended() {
    let identity = Identity::new("stuck");
    let server = serve_http(builder().first_byte_timeout(BRIEF).io_timeout(BRIEF).tls(identity.tls()));
    let silent = connect(server.local_addr());
    let mut stuck = connect(server.local_addr());
    stuck.write_all(b"\x16\x03\x01\x00").expect("it reads");
    for stream in [&silent, &stuck] {
        assert!(rest(stream).unwrap_or_default().is_empty());
    }
    await_that("both are counted", || {
        let metrics = server.metrics();
        (metrics.timed_out_first_byte, metrics.timed_out_io) == (1, 1)
    });
}

#[test]
fn who_does_not_speak_tls_is_told_so_and_others_are_served() {
    let identity = Identity::new("plain");
    let server = serve_http(builder().tls(identity.tls()));
    let alert = exchange(server.local_addr(), GET.as_bytes()).unwrap_or_default();
    assert!(alert.is_empty() || alert.starts_with(b"\x15\x03"), "{}", alert.escape_ascii());
    await_that("it is counted", || server.metrics().handshakes_failed == 1);
    // Not spoken by the server.
    let mut other = dial(&identity.client(&[b"h2"]), server.local_addr());
    assert!(other.write_all(GET.as_bytes()).and_then(|()| other.flush()).is_err());
    await_that("it is counted", || server.metrics().handshakes_failed == 2);
    assert_eq!(ask_http(&mut dial(&identity.client(&[]), server.local_addr()), GET).1, b"/a 0");
    // Who says nothing at all is no failure.
    drop(connect(server.local_addr()));
    await_that("it is counted", || server.metrics().empty == 1);
    assert_eq!(server.metrics().handshakes_failed, 2);
}

#[test]
fn who_is_refused_costs_no_handshake() {
    let identity = Identity::new("refused");
    let server = builder().workers(1).patience(BRIEF).max_connections(1).tls(identity.tls());
    let (server, gate) = serve_lines(server);
    let config = identity.client(&[]);
    let mut held = dial(&config, server.local_addr());
    held.write_all(b"block\n").expect("it reads");
    gate.await_blocked(1);
    await_that("somebody is refused", || {
        let refused = refused_with(server.local_addr());
        assert!(refused.as_ref().is_ok_and(Vec::is_empty) || refused == Err(io::ErrorKind::ConnectionReset));
        server.metrics().refused_connections_full > 0
    });
    gate.open(1);
    let mut reply = [0; 10];
    held.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"unblocked\n");
}

#[test]
fn a_new_certificate_is_shown_to_new_clients() {
    let identity = Identity::new("renewed");
    let tls = identity.tls();
    let server = serve_http(builder().tls(tls.clone()));
    let before = identity.client(&[]);
    let mut kept = dial(&before, server.local_addr());
    assert_eq!(ask_http(&mut kept, GET).1, b"/a 0");
    identity.renew();
    tls.reload().expect("both files");
    assert_eq!(ask_http(&mut kept, GET).1, b"/a 0");
    assert_eq!(ask_http(&mut dial(&identity.client(&[]), server.local_addr()), GET).1, b"/a 0");
    // As a whole, with the other settings.
    identity.renew();
    assert!(server.reload(builder().tls(identity.tls())).expect("it is right").is_empty());
    assert_eq!(ask_http(&mut dial(&identity.client(&[]), server.local_addr()), GET).1, b"/a 0");
    assert_eq!(server.reload(builder()).expect("it is right"), ["tls"]);
    // Where nothing else can change, too.
    let spawning = overfall::baseline::serve(
        builder().tls(identity.tls()),
        overfall::baseline::Bound::None,
        |c: &mut Connection<'_>| writeln!(c, "hello").map(|()| Next::Close),
    )
    .expect("it serves");
    identity.renew();
    assert!(spawning.reload(builder().tls(identity.tls())).expect("it is right").is_empty());
    let mut hello = dial(&identity.client(&[]), spawning.local_addr());
    hello.write_all(b"x").expect("it reads");
    let mut said = String::new();
    hello.read_to_string(&mut said).expect("an end that was told");
    assert_eq!(said, "hello\n");
    tls.reload().expect("both files");
    // A key of another certificate changes nothing.
    let now = identity.client(&[]);
    let other = Identity::new("other");
    fs::copy(other.key(), identity.key()).expect("a file");
    let said = tls.reload().expect_err("a key of another certificate").to_string();
    assert!(said.contains("is not that of the first certificate"), "{said}");
    assert_eq!(ask_http(&mut dial(&now, server.local_addr()), GET).1, b"/a 0");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let (one, other) = (Identity::new("one"), Identity::new("another"));
    let text = |path: PathBuf| path.to_str().expect("text").to_owned();
    let (certificate, key) = (text(one.certificate()), text(one.key()));
    assert_wrong_usage(
        &["serve"],
        &[
            (&["--tls-cert", "no-such-file", "--tls-key", &key], "--tls-cert is no-such-file; it may be"),
            (&["--tls-cert", &key, "--tls-key", &key], "nothing of that kind is in it"),
            (&["--tls-cert", &certificate, "--tls-key", &certificate], "--tls-key is"),
            (&["--tls-cert", &certificate], "--tls-key <FILE>"),
        ],
    );
    let other = text(other.key());
    let checked =
        (&["--tls-cert", &certificate, "--tls-key", &other][..], "is not that of the first certificate");
    assert_wrong_usage(&["serve", "--check-config"], &[checked]);
    let output = run(&["serve", "--tls-cert", &certificate, "--tls-key", &other]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is not that of the first certificate"), "{said}");
}

#[test]
fn what_a_file_lacks_is_said_in_words() {
    let identity = Identity::new("words");
    let (certificate, key) = (identity.certificate(), identity.key());
    let (whole_certificate, whole_key) = (fs::read(&certificate).expect("it"), fs::read(&key).expect("it"));
    let end = |whole: &[u8]| String::from_utf8_lossy(whole).rfind("-----END").expect("an END line");
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n\
                     -----END RSA PRIVATE KEY-----\n";
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let not_base64 = "-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----\n";
    let unknown = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    let cut = "it ends without the END line of its last part";
    for (name, content, why) in [
        ("tls_cert", &whole_certificate[..end(&whole_certificate)], cut),
        ("tls_key", &whole_key[..end(&whole_key)], cut),
        ("tls_key", encrypted.as_bytes(), "it is encrypted"),
        ("tls_key", pkcs8.as_bytes(), "it is encrypted"),
        ("tls_key", not_base64.as_bytes(), "what is between BEGIN and END is no base64"),
        ("tls_key", b"", "nothing of that kind is in it"),
        ("tls_key", &[b'\n'; (1 << 20) + 1], "it has more than 1 MiB"),
        ("", unknown.as_bytes(), "cannot be used; give one of RSA with 2048 to 8192 bits"),
    ] {
        fs::write(&certificate, &whole_certificate).expect("a file");
        fs::write(&key, &whole_key).expect("a file");
        let changed = if name == "tls_cert" { &certificate } else { &key };
        fs::write(changed, content).expect("a file");
        let error = Tls::from_files(&certificate, &key).expect_err(why);
        assert_eq!(error.setting_name().unwrap_or_default(), name, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn what_may_never_end_is_not_read() {
    let identity = Identity::new("endless");
    // A pipe that nobody writes to, and what has no end.
    let pipe = identity.directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    for endless in [pipe, "/dev/zero".into(), identity.directory.path().into()] {
        for error in [
            Tls::from_files(&endless, identity.key()).expect_err("no file"),
            Tls::from_files(identity.certificate(), &endless).expect_err("no file"),
        ] {
            assert!(error.to_string().contains("it is no regular file"), "{error}");
        }
    }
}

#[test]
fn a_relay_passes_on_bulks_and_both_ends() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = upstream.local_addr().expect("an address");
    thread::spawn(move || {
        // What merely connects is a check.
        while let Ok((mut stream, _)) = upstream.accept() {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("an end");
            stream.write_all(&all).expect("it reads");
        }
    });
    let identity = Identity::new("relay");
    let upstreams = vec![UpstreamConfig { name: addr.to_string(), weight: 1 }];
    let config = Config { upstreams, ..Config::default() };
    let balancer = balance::serve(builder().tls(identity.tls()), config).expect("it balances");
    let mut client = dial(&identity.client(&[b"anything"]), balancer.handle().local_addr());
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|index| index as u8).collect();
    client.write_all(&bytes).expect("it reads");
    client.conn.send_close_notify();
    client.flush().expect("it reads");
    let mut back = Vec::new();
    client.read_to_end(&mut back).expect("an end that was told");
    assert!(back == bytes, "{} bytes came back", back.len());
}

#[test]
fn an_upstream_hears_that_its_client_came_over_tls() {
    let identity = Identity::new("forwarded");
    let upstream = upstream(ok);
    let config = Config {
        http: Some(balance::HttpConfig::default()),
        upstreams: vec![UpstreamConfig { name: upstream.addr.to_string(), weight: 1 }],
        ..Config::default()
    };
    let proxy = balance::serve(builder().tls(identity.tls()), config).expect("it balances");
    let mut client = dial(&identity.client(&[b"http/1.1"]), proxy.handle().local_addr());
    assert_eq!(ask_http(&mut client, GET).1, b"GET /a HTTP/1.1");
    let head = upstream.next_head();
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
}

#[test]
fn a_handler_may_speak_first_once_the_handshake_is_done() {
    struct Greets;
    impl overfall::Handler for Greets {
        type State = ();
        fn open(&self, connection: &mut Connection<'_>) -> io::Result<()> {
            let word = if connection.is_encrypted() { "sealed" } else { "open" };
            writeln!(connection, "hello {word}")
        }
        fn ready(&self, _: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
            Ok(Next::Close)
        }
    }
    let identity = Identity::new("greets");
    let server = builder().tls(identity.tls()).serve_handler(Greets).expect("it serves");
    let mut client = dial(&identity.client(&[]), server.local_addr());
    let mut greeting = [0; 13];
    client.read_exact(&mut greeting).expect("a greeting");
    assert_eq!(&greeting, b"hello sealed\n");
}

#[test]
fn at_the_end_idle_clients_are_told() {
    let identity = Identity::new("drain");
    let server = serve_http(builder().tls(identity.tls()));
    let mut client = dial(&identity.client(&[]), server.local_addr());
    ask_http(&mut client, GET);
    server.shutdown();
    assert_eq!(client.read(&mut [0]).expect("an end that was told"), 0);
    drop(client);
    server.join().expect("it drains");
}

#[test]
fn a_client_that_has_gone_without_a_word_has_ended() {
    let identity = Identity::new("gone");
    let server = serve_http(builder().tls(identity.tls()));
    let mut client = dial(&identity.client(&[]), server.local_addr());
    ask_http(&mut client, GET);
    client.sock.shutdown(Shutdown::Both).expect("it is there");
    await_that("it is closed", || server.metrics().connections_open == 0);
    assert_eq!((server.metrics().failed, server.metrics().handshakes_failed), (0, 0));
}

#[test]
fn curl_and_openssl_are_served() {
    let identity = Identity::new("curl");
    let (certificate, key) = (identity.certificate(), identity.key());
    let arguments = ["--app", "http", "--tls-cert", certificate.to_str().expect("text")];
    let server = serve(&[&arguments[..], &["--tls-key", key.to_str().expect("text")]].concat());
    let port = server.addr.port();
    let url = format!("https://localhost:{port}/");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let curl = Command::new("curl")
            .args(["-sS", version, "--tls-max", &version[6..], "--connect-to", "::127.0.0.1:", "--cacert"])
            .arg(&certificate)
            .arg(&url)
            .output();
        match curl {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, client!", "{version}: {said}");
            }
            Err(error) => eprintln!("SKIPPED: curl cannot be started: {error}"),
        }
    }
    let openssl = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}"), "-CAfile"])
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut openssl) = openssl else { return eprintln!("SKIPPED: openssl cannot be started") };
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut stdin = openssl.stdin.take().expect("piped");
    stdin.write_all(request).expect("it reads");
    let mut reply = String::new();
    openssl.stdout.take().expect("piped").read_to_string(&mut reply).expect("text");
    assert!(reply.ends_with("Hello, client!"), "{reply}");
    drop(stdin);
    assert!(openssl.wait().expect("it ends").success());
}
