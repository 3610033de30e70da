//! The benchmark as a command: what it writes, what it says of arms that fail, what it leaves behind.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{
    support::*,
    temporary::{TempDir, TempFile},
};

fn json_of(file: &TempFile) -> serde_json::Value {
    serde_json::from_str(&file.read()).expect("JSON")
}

/// Not pinned, since other tests run beside it.
fn bench(args: &[&str]) -> Output {
    run(&[&["bench", "--pin", "off", "--rounds", "1", "--duration", "400ms"], args].concat())
}

#[test]
fn every_scenario_is_measured_and_written() {
    let (json, html, svg) = (TempFile::new("all.json"), TempFile::new("all.html"), TempFile::new("all.svg"));
    let output = bench(&[
        "--arm",
        "pool",
        "--loads",
        "0.5,2",
        "--capacity",
        "200",
        "--arrivals",
        "uniform",
        "--work",
        "2ms",
        "--deadline",
        "5s",
        "--idle",
        "50",
        "--json",
        json.path(),
        "--html",
        html.path(),
        "--svg",
        svg.path(),
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for scenario in ["connections", "keepalive", "overload", "idle"] {
        assert!(text.contains(&format!("\n{scenario}: ")), "{text}");
    }
    let document = json_of(&json);
    assert_eq!(document["version"], 1);
    let cells = document["cells"].as_array().unwrap();
    // One each, the two loads, and the first arm again in connections and in overload.
    assert_eq!(cells.len(), 7);
    let fields = [
        "offered_per_s",
        "sent_per_s",
        "goodput_per_s",
        "refused",
        "reset",
        "timed_out",
        "dropped",
        "rss_bytes",
        "threads",
    ];
    for cell in cells {
        assert!(fields.iter().all(|&field| cell[field].is_number()), "{cell}");
        let is_known = |field: &str| cell[field].is_number() == (cell["good"] != 0);
        assert!(["p50_us", "p99_us", "cpu_us_per_request"].into_iter().all(is_known), "{cell}");
        if cell["verdict"] == "not measured" {
            // On a machine that is too busy to offer it.
            assert_eq!(cell["load"], document["left_out"][0]["load"]);
            continue;
        }
        assert!(["ok", "generator-bound"].contains(&cell["verdict"].as_str().unwrap()), "{cell}");
        // A pool whose machine has no time for it refuses, and rightly so.
        let outcomes = ["good", "refused", "reset"].map(|outcome| cell[outcome].as_u64().unwrap());
        assert!(outcomes.iter().any(|&count| count > 0), "{cell}");
        assert!(!cell["rounds"][0]["samples"].as_array().unwrap().is_empty());
    }
    let idle = cells.iter().find(|cell| cell["scenario"] == "idle").unwrap();
    assert_eq!(idle["rounds"][0]["silent"]["opened"], 50);
    assert!(document["environment"]["somaxconn"].is_string());
    let page = fs::read_to_string(html.path()).unwrap();
    // No address of another host in it: the only one is the name of SVG's namespace.
    assert_eq!(page.matches("://").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert!(page.contains("Goodput against offered load"));
    // On a machine that is too busy to offer the load there is no result to draw.
    let drawn = |what: &str| page.matches(&format!("class=\"{what} ")).count();
    let missing = cells.iter().filter(|cell| cell["arm"] == "pool" && cell["verdict"] != "ok").count();
    assert_eq!(drawn("cross") > 0, missing > 0, "{text}");
    assert!(drawn("dot") > 0 && drawn("line") > 0);
    for report in [&text, &page] {
        assert!(report.contains("one round, which proves nothing"), "{report}");
    }
    assert!(text.starts_with(document["verdict"].as_str().unwrap()), "{text}");
    assert!(fs::read_to_string(svg.path()).unwrap().starts_with("<svg"));
}

/// A request that takes no work at all leaves the generator no room above the capacity.
#[test]
fn loads_that_this_machine_cannot_offer_are_left_out_and_the_others_are_measured() {
    let (json, html) = (TempFile::new("left-out.json"), TempFile::new("left-out.html"));
    let args = [
        "--scenario",
        "overload",
        "--arm",
        "pool",
        "--arrivals",
        "uniform",
        "--work",
        "0s",
        "--loads",
        "0.05,1000000",
    ];
    let output = bench(&[&args[..], &["--json", json.path(), "--html", html.path()]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("\n1000000× is left out: ") && text.contains("requests per second need "),
        "{text}"
    );
    let document = json_of(&json);
    assert_eq!(document["left_out"][0]["load"], 1e6);
    assert_eq!(document["cells"][0]["load"], 0.05);
    assert!(document["cells"][0]["good"].as_u64().unwrap() > 0, "{text}");
    assert!(html.read().contains("class=\"cross "));
}

#[test]
fn arms_that_fail_are_named_and_the_others_still_run() {
    let json = TempFile::new("failures.json");
    let liar = nobody().to_string();
    let program = env!("CARGO_BIN_EXE_overfall");
    // It echoes where it should greet.
    let liar_arm = format!("liar={program} serve -q --app echo --listen {{addr}}@{liar}");
    let dead_arm = format!("dead=echo 'no such luck' >&2; exit 3@{}", nobody());
    let output = bench(&[
        "--scenario",
        "connections",
        "--arm",
        "pool",
        "--against",
        &liar_arm,
        "--against",
        &dead_arm,
        "--json",
        json.path(),
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("failed: liar in connections: it answers wrongly: "), "{text}");
    assert!(
        text.contains("failed: dead in connections: it ended with exit status: 3: no such luck"),
        "{text}"
    );
    let document = json_of(&json);
    let verdict = |arm: &str| {
        let cells = document["cells"].as_array().unwrap();
        cells.iter().find(|cell| cell["arm"] == arm).unwrap()["verdict"].clone()
    };
    assert_eq!(
        (verdict("pool"), verdict("liar"), verdict("dead")),
        ("ok".into(), "failed".into(), "failed".into())
    );
}

#[test]
fn an_arm_that_dies_says_its_last_words() {
    let addr = nobody().to_string();
    let program = env!("CARGO_BIN_EXE_overfall");
    // It dies while it is measured: when all 64 clients of the closed loop have their connections.
    let script = format!(
        "mortal=sh -c '{program} serve -q --app {{app}} --listen {{addr}} & \
         until [ $(ls /proc/$!/fd | wc -l) -gt 64 ]; do sleep 0.01; done; \
         kill -9 $!; echo farewell >&2; exit 5'@{addr}"
    );
    let output = bench(&["--scenario", "keepalive", "--arm", "pool", "--against", &script]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("failed: mortal in keepalive: it ended with exit status: 5: farewell"), "{text}");
}

#[test]
fn a_build_can_gate_on_the_goodput() {
    let args = ["--scenario", "overload", "--arm", "pool", "--capacity", "500", "--loads", "0.2,0.4"];
    // The goodput rises with the load, so that all of it is kept.
    let patient = ["--deadline", "5s", "--require-goodput", "0.5"];
    let output = bench(&[&args[..], &patient[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("No result at 0.4×") || text.contains("0.4× is left out") {
        println!("SKIPPED: this machine is too busy to offer the load");
    } else {
        assert_eq!(output.status.code(), Some(0), "{text}");
    }
    // Nobody can answer within a millisecond what takes longer.
    let hopeless = ["--work", "20ms", "--deadline", "1ms", "--require-goodput", "0.9"];
    let output = bench(&[&args[..], &hopeless[..]].concat());
    assert_eq!(output.status.code(), Some(99), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A long benchmark, and the processes that it has started.
fn long_bench() -> (std::process::Child, impl Fn() -> Vec<String>) {
    let args = ["bench", "--pin", "off", "--scenario", "keepalive", "--arm", "pool", "--duration", "10m"];
    let child = overfall(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let started = move || {
        let children = fs::read_to_string(&path).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    (child, started)
}

/// Whether a process runs: one that has ended and was not waited for does not.
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn interrupted_it_reports_what_it_has_and_leaves_nothing_behind() {
    let (child, started) = long_bench();
    await_that("a server and its guard are started", || started().len() == 2);
    let processes = started();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("interrupted: this is what was measured until then")
    );
    assert!(!processes.iter().any(|process| runs(process)), "{processes:?}");
}

#[test]
fn killed_it_leaves_nothing_behind_either() {
    let (mut child, started) = long_bench();
    await_that("a server and its guard are started", || started().len() == 2);
    let processes = started();
    child.kill().unwrap();
    child.wait().unwrap();
    await_that("all have ended", || !processes.iter().any(|process| runs(process)));
}

#[test]
fn wrong_usage_is_one_sentence() {
    let twice = "pool=x@127.0.0.1:1";
    let cases: &[(&[&str], &str)] = &[
        (&["--scenario", "all"], "'all' for '--scenario <SCENARIO>'"),
        (&["--against", "x"], "'x' for '--against <NAME=COMMAND@ADDR>'"),
        (&["--peer", "apache"], "'apache' for '--peer <PEER>' [possible values: nginx, haproxy, go]"),
        (&["--peer", "go", "--peer", "go"], "two arms are called go"),
        (&["--peer", "nginx"], "--peer nginx speaks http only; give --protocol http with it"),
        (&["--peer", "haproxy"], "--peer haproxy speaks http only"),
        (&["--against", twice], "two arms are called pool; give each its own name"),
        (&["--idle", "100000000"], "--idle 100000000 needs more than the "),
        (&["--loads", "1,-2"], "'-2' for '--loads <LIST>'"),
        (&["--capacity", "1e-30"], "'1e-30' for '--capacity <N>'"),
        (&["--scenario", "idle", "--svg", "x"], "--svg draws the goodput curve"),
        (&["--rounds", "0"], "'0' for '--rounds <N>'"),
        (&["--workers", "0"], "'0' for '--workers <N>'"),
        (&["--pin", "0-1"], "'0-1' for '--pin <PIN>'"),
        (&["--pin", "0:9999"], "--pin 0:9999 names a CPU that this process may not use"),
        (&["--capacity", "9000000"], "requests per second need "),
        (&["--deadline", "0s"], "'0s' for '--deadline <D>'"),
        (&["--require-goodput", "90"], "'90' for '--require-goodput <SHARE>'"),
    ];
    assert_wrong_usage(&["bench"], cases);
}

#[test]
fn http_is_a_protocol_too() {
    let json = TempFile::new("http.json");
    let arms = ["--protocol", "http", "--arm", "pool", "--json", json.path()];
    let load = ["--loads", "0.5", "--capacity", "200", "--scenario", "overload", "--scenario", "keepalive"];
    let output = bench(&[&arms[..], &load].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let document = json_of(&json);
    assert_eq!(document["plan"]["protocol"], "http");
    for cell in document["cells"].as_array().unwrap() {
        assert!(cell["command"].as_str().unwrap().contains("--app http"), "{cell}");
        assert!(cell["goodput_per_s"].as_f64().unwrap() > 0.0, "{cell}");
        assert_eq!(cell["wrong"], 0, "{cell}");
    }
}

#[test]
fn the_short_help_fits_on_a_screen() {
    let output = run(&["bench", "-h"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.lines().count() <= 24, "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    for group in ["What is measured", "Arms", "Report"] {
        assert!(help.contains(&format!("\n{group}:\n")), "{help}");
    }
    // What is hidden there is in the long one.
    let long = String::from_utf8(run(&["bench", "--help"]).stdout).unwrap();
    for flag in ["--duration", "--pin", "--loads", "--capacity", "--svg", "--require-goodput"] {
        assert!(long.contains(flag) && !help.contains(flag), "{flag}");
    }
}

/// Whether a peer can be had here; says so where it cannot.
fn is_installed(program: &str, version: &str) -> bool {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
    let output = Command::new("env").arg(format!("PATH={path}")).args([program, version]).output().unwrap();
    if !output.status.success() {
        println!("SKIPPED: {program}, a package of Debian, is not installed");
    }
    output.status.success()
}

/// Processes that have something of this directory on their command lines.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
    all.filter_map(|file| fs::read_to_string(file).ok()).filter(|line| line.contains(name)).collect()
}

/// Measures a peer with its files in a directory of the test, and expects that nothing of it is left.
fn measure_peer(name: &str, args: &[&str]) -> serde_json::Value {
    let (place, json) = (TempDir::new("peers"), TempFile::new("peer.json"));
    let mut command =
        overfall(&["bench", "--pin", "off", "--rounds", "1", "--duration", "400ms", "--arm", "pool"]);
    command.args(["--peer", name, "--json", json.path()]).args(args).env("TMPDIR", place.path());
    let output = command.output().unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(processes_of(place.path()), [""; 0]);
    let document = json_of(&json);
    let version = document["environment"]["peers"][name].as_str().unwrap();
    assert!(text.contains(&format!("Peers: {version}.")), "{text}");
    document
}

/// The good replies of an arm in each scenario in which it has a part.
fn good(document: &serde_json::Value, arm: &str) -> Vec<(String, u64)> {
    let cells = document["cells"].as_array().unwrap().iter().filter(|cell| cell["arm"] == arm);
    let good = cells.inspect(|cell| assert_eq!(cell["wrong"], 0, "{cell}"));
    good.map(|cell| (cell["scenario"].as_str().unwrap().to_owned(), cell["good"].as_u64().unwrap())).collect()
}

#[test]
fn servers_of_static_replies_are_peers_over_http_and_have_no_part_in_an_overload() {
    for (name, version) in [("nginx", "-v"), ("haproxy", "-v")] {
        if !is_installed(name, version) {
            continue;
        }
        let load = ["--capacity", "100", "--loads", "0.5", "--idle", "100"];
        let document = measure_peer(name, &[&["--protocol", "http"][..], &load].concat());
        let good = good(&document, name);
        let scenarios: Vec<_> = good.iter().map(|(scenario, _)| &**scenario).collect();
        assert_eq!(scenarios, ["connections", "keepalive", "idle"]);
        assert!(good.iter().all(|&(_, good)| good > 0), "{good:?}");
    }
}

#[test]
fn go_is_built_and_does_the_same_work() {
    if !is_installed("go", "version") {
        return;
    }
    for protocol in ["tcp", "http"] {
        let load =
            ["--scenario", "keepalive", "--scenario", "overload", "--capacity", "100", "--loads", "0.5"];
        let document = measure_peer("go", &[&["--protocol", protocol, "--work", "3ms"][..], &load].concat());
        let good = good(&document, "go");
        assert!(good.len() == 2 && good.iter().all(|&(_, good)| good > 0), "{good:?}");
        let cells = document["cells"].as_array().unwrap();
        let mut overload = cells.iter().filter(|cell| cell["arm"] == "go" && cell["scenario"] == "overload");
        // It is told the work, and does it.
        assert!(overload.next().unwrap()["cpu_us_per_request"].as_f64().unwrap() >= 2000.0, "{document}");
    }
}

#[test]
fn a_peer_that_is_not_installed_is_named_with_its_package() {
    let place = TempDir::new("nothing");
    let output = overfall(&["bench", "--peer", "go"]).env("PATH", place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "error: --peer go needs go, which is not installed; on Debian, apt install golang-go\n");
}

#[test]
fn a_peer_that_cannot_be_built_is_said_and_nothing_of_it_is_left() {
    let place = TempDir::new("broken");
    let bin = place.path().join("bin");
    let temporary = place.path().join("tmp");
    [&bin, &temporary].iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let go = place.write("bin/go", "#!/bin/sh\necho 'no such luck' >&2\nexit 1\n");
    fs::set_permissions(&go, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = overfall(&["bench", "--peer", "go"]);
    let output = command.env("PATH", &bin).env("TMPDIR", &temporary).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("error: cannot build ") && said.ends_with(": no such luck\n"), "{said}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
