//! What the README shows of units, containers and manifests is what it says.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use overfall::{admin, balance};
use serde_json::Value;

use crate::{support::*, temporary::TempDir};

const OVERFALL: &str = env!("CARGO_BIN_EXE_overfall");

/// The blocks of the README in this language.
fn blocks(language: &str) -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let blocks = text.split("```").skip(1).step_by(2);
    let ours = blocks.filter_map(|block| block.strip_prefix(&format!("{language}\n")).map(str::to_owned));
    let ours: Vec<_> = ours.collect();
    assert!(!ours.is_empty(), "there is no {language}");
    ours
}

/// Expects that the command would start like this.
fn assert_would_start(args: &[&str]) {
    let output = run(&[args, &["--check-config"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a program of the system says, where it is there.
fn ask_tool(command: &mut Command) -> Option<Output> {
    let output = command.output();
    if output.is_err() {
        eprintln!("SKIPPED: {} is not installed", Path::new(command.get_program()).display());
    }
    output.ok()
}

#[test]
fn units_are_well_formed_and_start_the_command() {
    let dir = TempDir::new("units");
    let config = dir.write("overfall.toml", "protocol = \"http\"\nupstreams = [\"127.0.0.1:8888\"]\n");
    let config = config.to_str().unwrap();
    let mut units = Vec::new();
    for block in blocks("ini") {
        let path = block.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        let text = block.replace("/usr/local/bin/overfall", OVERFALL).replace("/etc/overfall.toml", config);
        units.push(dir.write(Path::new(path).file_name().unwrap().to_str().unwrap(), &text));
        if let Some(start) = text.lines().find_map(|line| line.strip_prefix("ExecStart=")) {
            let args: Vec<_> = start.split(' ').collect();
            assert_eq!(args[0], OVERFALL);
            assert_would_start(&args[1..]);
        }
    }
    assert_eq!(units.len(), 2);
    let Some(output) = ask_tool(Command::new("systemd-analyze").arg("verify").args(&units)) else { return };
    // It says as well what it thinks of other units.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("overfall."), "{said}");
}

#[test]
fn the_container_runs_what_there_is_without_root() {
    let [file] = &blocks("dockerfile")[..] else { panic!("one is enough") };
    let last = |instruction: &str| {
        let found = file.lines().filter_map(|line| line.strip_prefix(instruction)).next_back();
        found.unwrap_or_else(|| panic!("there is no {instruction}")).trim().to_owned()
    };
    let words = |instruction| serde_json::from_str::<Vec<String>>(&last(instruction)).unwrap();
    assert_eq!(words("ENTRYPOINT"), ["overfall"]);
    let args = words("CMD");
    assert_would_start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let (user, group) = last("USER").split_once(':').map(|(u, g)| (u.to_owned(), g.to_owned())).unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
}

/// Expects that what a query to Prometheus asks for is among a balancer's metrics.
fn assert_is_measured(query: &str) {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: Vec<_> = words.filter(|word| word.starts_with("overfall_")).collect();
    let upstreams = vec!["127.0.0.1:1".parse().unwrap()];
    let config = balance::Config { upstreams, ..balance::Config::default() };
    let balancer = Arc::new(balance::serve(builder(), config).unwrap());
    let shown = admin::serve(TcpListener::bind("127.0.0.1:0").unwrap(), Arc::clone(&balancer)).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let metrics = String::from_utf8(exchange(shown.local_addr(), request).unwrap()).unwrap();
    assert!(!names.is_empty(), "{query}");
    for name in names {
        assert!(metrics.contains(&format!("\n{name}")), "{name} is not in {metrics}");
    }
}

#[test]
fn manifests_are_well_formed_and_name_what_there_is() {
    const TO_JSON: &str =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin.read()))))";
    if !Command::new("python3")
        .args(["-c", "import yaml"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return eprintln!("SKIPPED: python3-yaml is not installed");
    }
    let dir = TempDir::new("manifests");
    for block in blocks("yaml") {
        let file = fs::File::open(dir.write("manifest.yaml", &block)).unwrap();
        let output = ask_tool(Command::new("python3").args(["-c", TO_JSON]).stdin(file)).unwrap();
        let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(all.iter().all(|one| one["apiVersion"].is_string() && one["metadata"]["name"].is_string()));
        let deployment = all.iter().find(|one| one["kind"] == "Deployment").unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let args: Vec<_> =
            container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        assert_would_start(&args);
        let scaled = all.iter().find(|one| one["kind"] == "ScaledObject").unwrap();
        let trigger = &scaled["spec"]["triggers"][0];
        assert_is_measured(trigger["metadata"]["query"].as_str().unwrap());
        // A time to wait is not shared out among the pods, as the default would have it: each time that it
        // is twice what it is to be, there are to be twice as many.
        assert_eq!(trigger["metricType"], "Value");
        // Probes and the scraper ask where it answers, and the pods are where it looks for them.
        let admin = args[args.iter().position(|arg| *arg == "--admin").unwrap() + 1];
        let (_, port) = admin.rsplit_once(':').unwrap();
        for probe in ["readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"].to_string(), port);
        }
        assert_eq!(deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"], port);
        let (service, port) = args.last().unwrap().split_once(':').unwrap();
        let pods = all.iter().find(|one| one["metadata"]["name"] == service).unwrap();
        assert_eq!(
            (&pods["spec"]["clusterIP"], pods["spec"]["ports"][0]["port"].to_string()),
            (&"None".into(), port.to_owned())
        );
    }
}
