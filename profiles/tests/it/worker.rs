//! The real program over its standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use search::Architecture;
use search::config::LatencyConfig;
use search::device::Device;
use search::latency::{Conditions, Dtype, Limit, Part, Phase, parts};
use search::wire::{
    CONFIGURE_ID, Check, Checked, Configure, Measure, MeasureLimit, MeasureWhole, PROTOCOL, Reply,
    Request,
};

fn program(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltafront-profile"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built for this test");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("the program reads its input");
    drop(stdin);
    child.wait_with_output().expect("the program ends with its input")
}

fn replies(output: &Output) -> Vec<Reply> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}

fn line(request: &Request) -> String {
    serde_json::to_string(request).expect("requests are plain data") + "\n"
}

fn device() -> String {
    match &replies(&program(&[], ""))[..] {
        [Reply::Hello(hello)] => {
            assert_eq!(hello.protocol, PROTOCOL);
            assert_eq!(hello.can, ["measure", "measure_whole", "measure_limit", "check"]);
            assert_eq!(hello.kernels, Some(kernels::version()));
            hello.device.clone()
        }
        other => panic!("the first and only line without requests is hello, got {other:?}"),
    }
}

/// A batch system may tell all processes of a job that its time is nearly over.
#[test]
fn a_time_limit_is_left_to_the_driver() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltafront-profile"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program was built for this test");
    let mut output = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    output.next().expect("a hello").expect("it is text");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // What it answers after its hello shows that it listens.
    let limit = MeasureLimit { id: 1, limit: Limit::Read { mib: 1 }, threads: 1 };
    let limit = line(&Request::MeasureLimit(limit));
    stdin.write_all(limit.as_bytes()).expect("it reads");
    output.next().expect("an answer").expect("it is text");
    let kill = Command::new("kill").args(["-USR1", &child.id().to_string()]).status();
    assert!(kill.expect("kill is there").success());
    stdin.write_all(limit.as_bytes()).expect("it reads on");
    drop(stdin);
    assert_eq!(output.count(), 1);
    assert!(child.wait().expect("it ends with its input").success());
}

#[test]
fn requests_are_answered_in_order_and_bad_ones_too() {
    let architecture: Architecture =
        "d=16,vocab=20,tied | gdn(h=2,k=4,v=8)+ffn(24)".parse().unwrap();
    let phase = Phase::Decode { context: 10 };
    let conditions =
        Conditions { device: device(), dtype: Dtype::F32, batch: 1, threads: 1, phase };
    let parts: Vec<Part> = parts(&architecture).collect();
    let mut input = line(&Request::Configure(Configure {
        latency: Some(LatencyConfig::default()),
        ..Configure::default()
    }));
    for (id, part) in (1..).zip(&parts) {
        input += &line(&Request::Measure(Measure {
            id,
            part: *part,
            working_set_kib: 8 << 10,
            before_ffn: false,
            conditions: conditions.clone(),
        }));
    }
    input += &line(&Request::MeasureWhole(MeasureWhole {
        id: 10,
        architecture: architecture.clone(),
        conditions: conditions.clone(),
    }));
    for (id, limit, threads) in [
        (13, Limit::Read { mib: 1 }, 1),
        (14, Limit::Product, 1),
        (15, Limit::Read { mib: 0 }, 1),
        (16, Limit::Product, 0),
    ] {
        input += &line(&Request::MeasureLimit(MeasureLimit { id, limit, threads }));
    }
    input += "not a request\n\n";
    input += "{\"type\": \"measure\", \"id\": 11, \"part\": \"tail\"}\n";
    input += &line(&Request::Stop { id: 10 });
    input += &line(&Request::Measure(Measure {
        id: 12,
        part: parts[0],
        working_set_kib: 0,
        before_ffn: false,
        conditions: Conditions { threads: 0, ..conditions },
    }));

    let output = program(&[], &input);
    let replies = replies(&output);
    let ids: Vec<(u64, &str)> = replies[1..]
        .iter()
        .map(|reply| match reply {
            Reply::Timing(measured) => {
                assert!(measured.timing.median_us > 0.0);
                (measured.id, "timing")
            }
            Reply::Failed(refusal) => (refusal.id, "failed"),
            Reply::Infeasible(refusal) => (refusal.id, "infeasible"),
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    let expected = [
        (1, "timing"),
        (2, "timing"),
        (3, "timing"),
        (10, "timing"),
        (13, "timing"),
        (14, "timing"),
        (15, "infeasible"),
        (16, "infeasible"),
        (11, "failed"),
        (12, "infeasible"),
    ];
    assert_eq!(ids, expected);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("not a request"), "the offending line is in the log: {log}");
}

#[test]
fn a_configuration_for_another_device_is_refused_at_once() {
    let latency = LatencyConfig { device: Device::Cuda(Some(0)), ..LatencyConfig::default() };
    let request = Request::Configure(Configure { latency: Some(latency), ..Configure::default() });
    match &replies(&program(&[], &line(&request)))[..] {
        [Reply::Hello(_), Reply::Failed(refusal)] => {
            assert_eq!(refusal.id, CONFIGURE_ID);
            assert!(refusal.reason.contains("cuda:0"), "{}", refusal.reason);
        }
        other => panic!("expected hello and failed, got {other:?}"),
    }
}

#[test]
fn facts_help_and_wrong_arguments() {
    let output = program(&["--facts"], "");
    assert!(output.status.success());
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(facts["cpu"]["cores"].as_u64().unwrap() >= 1);
    assert_eq!(facts["kernels"], kernels::version());
    let nvidia = &facts["nvidia"];
    assert!(
        nvidia["driver"]["gpus"].is_array() || nvidia["unavailable"]["reason"].is_string(),
        "{nvidia}"
    );

    let help = program(&["--help"], "");
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: deltafront-profile"));
    let wrong = program(&["--fact"], "");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--fact"));
}

#[test]
fn what_cannot_be_timed_is_said_beforehand() {
    let architectures =
        ["d=16,vocab=20 | gdn(h=2,k=4,v=8)", "d=16,vocab=20 | kda(h=2,k=8,v=8)+ffn(24)"];
    let architectures: Vec<Architecture> =
        architectures.map(|text| text.parse().unwrap()).into_iter().collect();
    let under = |threads| Conditions {
        device: device(),
        dtype: Dtype::F32,
        batch: 1,
        threads,
        phase: Phase::Decode { context: 10 },
    };
    let check = |id, threads| {
        let (architectures, conditions) = (architectures.clone(), vec![under(1), under(threads)]);
        line(&Request::Check(Check { id, architectures, conditions }))
    };
    let replies = replies(&program(&[], &(check(3, 1) + &check(4, 100_000))));
    let nothing = Checked { id: 3, refused: Vec::new(), slow: Vec::new() };
    assert_eq!(replies[1], Reply::Checked(nothing));
    let Reply::Checked(Checked { id: 4, refused, .. }) = &replies[2] else {
        panic!("{:?}", replies[2])
    };
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].of, [0, 1]);
    assert!(refused[0].reason.contains("got 100000"), "{}", refused[0].reason);
}
