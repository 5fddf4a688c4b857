//! What must stay byte for byte whatever is moved in the code: text forms, identities, JSON, TOML, wire lines, and the
//! proposals of a seed. The corpus lies in `frozen/`; what is computed from it stands in `frozen/*.expected`, written by
//! `UPDATE_FROZEN=1 cargo test -p search frozen` and then looked at: a difference breaks files and databases of users.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use search::Architecture;
use search::config::{CampaignFile, json_schema};
use search::cost;
use search::latency::{Dtype, Phase, keys};
use search::pareto::Objectives;
use search::proposals::{Algorithm, Outcome, Proposer, SearchRng, Trial};
use search::references::{Reference, ReferenceShape};
use search::space::Space;
use search::tensors::tensors;
use search::wire::{Reply, Request};

use crate::stacks::{chance, conditions};

fn frozen(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/frozen").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(frozen(name)).expect("a file of the corpus")
}

/// Holds `got` to the file of expectations, and names the first line that differs.
fn check(name: &str, got: &str) {
    let path = frozen(&format!("{name}.expected"));
    if std::env::var_os("UPDATE_FROZEN").is_some() {
        std::fs::write(&path, got).expect("the folder of the corpus can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("the expectations are in the repository");
    for (number, (expected, got)) in expected.lines().zip(got.lines()).enumerate() {
        assert_eq!(got, expected, "{name}, line {}", number + 1);
    }
    assert_eq!(got.lines().count(), expected.lines().count(), "{name}: number of lines");
}

fn architectures() -> Vec<Architecture> {
    read("architectures.txt")
        .lines()
        .map(|line| {
            let architecture: Architecture = line.parse().expect(line);
            assert_eq!(architecture.to_string(), line, "the text form is canonical");
            architecture
        })
        .collect()
}

#[test]
fn texts_identities_and_json_of_every_mixer() {
    let mut got = String::new();
    for architecture in architectures() {
        let json = serde_json::to_string(&architecture).expect("an architecture is JSON");
        let back: Architecture = serde_json::from_str(&json).expect("its own JSON");
        assert_eq!(back, architecture);
        writeln!(got, "{} {json}", architecture.id()).expect("a string grows");
    }
    check("architectures", &got);
}

#[test]
fn tensors_and_costs_of_every_mixer() {
    let mut got = String::new();
    for architecture in architectures() {
        let mut hash = blake3::Hasher::new();
        for tensor in tensors(&architecture) {
            hash.update(
                format!("{} {:?} {:?}\n", tensor.name, tensor.shape, tensor.role).as_bytes(),
            );
        }
        let decode = Phase::Decode { context: 1000 };
        let prefill = Phase::Prefill { tokens: 777 };
        writeln!(
            got,
            "{} {} parameters {} flops {} {} state {} cache {} decode {} memory {}",
            architecture.id(),
            &hash.finalize().to_hex()[..16],
            search::tensors::parameters(&architecture),
            cost::flops(&architecture, decode),
            cost::flops(&architecture, prefill),
            cost::state_bytes(&architecture, 1000),
            cost::cache_bytes(&architecture, 1000, Dtype::Bf16),
            cost::decode_bytes(&architecture, 1000, Dtype::Int8),
            cost::memory_bytes(&architecture, 1000, 3, Dtype::F32),
        )
        .expect("a string grows");
    }
    check("costs", &got);
}

#[test]
fn keys_of_the_latency_table() {
    let mut got = String::new();
    for architecture in architectures() {
        let (_, decode) = &conditions()[0];
        for key in keys(&architecture, decode) {
            let json = serde_json::to_string(&key).expect("a key is JSON");
            writeln!(got, "{key} {json}").expect("a string grows");
        }
    }
    let mut lines: Vec<&str> = got.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    check("latency_keys", &(lines.join("\n") + "\n"));
}

#[test]
fn references_at_every_size() {
    let mut got = String::new();
    for reference in Reference::ALL {
        for (d_model, layers) in [(64, 2), (128, 7), (768, 12)] {
            let stack = reference
                .build(&ReferenceShape::usual(d_model, layers, 256, true))
                .expect("a usual shape");
            writeln!(got, "{reference} {stack}").expect("a string grows");
        }
    }
    check("references", &got);
}

/// The campaign files in `frozen/`.
const CAMPAIGN_FILES: [&str; 8] =
    ["template", "every_mixer", "staged", "gated_conv", "attention", "ffn", "experts", "parallel"];

#[test]
fn campaign_files_read_the_same() {
    for name in CAMPAIGN_FILES {
        let file = CampaignFile::parse(&read(&format!("{name}.toml"))).expect("a campaign file");
        let json = serde_json::to_string_pretty(&file).expect("a campaign file is JSON");
        check(&format!("{name}.json"), &(json + "\n"));
    }
    let schema = serde_json::to_string_pretty(&json_schema()).expect("a schema is JSON");
    check("schema.json", &(schema + "\n"));
}

/// A candidate's two made-up objectives: functions of its text and costs, free of `libm`.
fn objectives(architecture: &Architecture) -> Objectives {
    let parameters = search::tensors::parameters(architecture) as f64;
    let depth = architecture.layers().len() as f64;
    let loss = 3.0 - parameters / 1e6 - 0.05 * depth + 0.2 * chance(&architecture.to_string());
    Objectives::new(vec![loss, parameters * (1.0 + 0.1 * depth)]).expect("finite")
}

#[test]
fn the_same_seed_proposes_the_same_stacks() {
    let mut got = String::new();
    for name in CAMPAIGN_FILES {
        let file = CampaignFile::parse(&read(&format!("{name}.toml"))).expect("a campaign file");
        let space = file.space().expect("a possible space");
        writeln!(got, "{name}: {} stacks", space.size()).expect("a string grows");
        moves(&space, &mut got);
        for algorithm in Algorithm::ALL {
            let mut proposer = Proposer::new(algorithm, file.seed, 8, Vec::new());
            let mut trials: Vec<Trial<Architecture>> = Vec::new();
            for number in 1..=20 {
                let proposal = proposer.propose(&space, number, &trials).expect("a large space");
                writeln!(
                    got,
                    "{} {number} {} {}",
                    algorithm.name(),
                    proposal.point,
                    proposal.origin
                )
                .expect("a string grows");
                let outcome = match number % 9 {
                    3 => Outcome::Failed,
                    6 => Outcome::Infeasible,
                    _ => Outcome::Known(objectives(&proposal.point)),
                };
                trials.push(Trial { number, point: proposal.point, outcome });
            }
        }
    }
    check("proposals", &got);
}

fn moves(space: &Space, got: &mut String) {
    let mut rng = SearchRng::seed_from_u64(3);
    let mut last = space.sample(&mut rng);
    for _ in 0..40 {
        let next = space.sample(&mut rng);
        let (mutated, change) = space.mutate(&next, &mut rng);
        let child = space.recombine(&last, &mutated, &mut rng);
        let neighbours = space.neighbours(&child);
        let texts: Vec<String> = neighbours.iter().map(ToString::to_string).collect();
        let hash = blake3::hash(texts.join("\n").as_bytes());
        let encoded: Vec<String> = space.encode(&child).iter().map(|x| format!("{x:.6}")).collect();
        writeln!(
            got,
            "{next}; {change}; {child}; {} neighbours {}; {}",
            neighbours.len(),
            &hash.to_hex()[..16],
            encoded.join(" ")
        )
        .expect("a string grows");
        last = child;
    }
}

#[test]
fn wire_lines_stay_as_they_are() {
    for line in read("requests.jsonl").lines() {
        assert_eq!(Request::parse(line).expect(line).to_line().expect("JSON"), line);
    }
    for line in read("replies.jsonl").lines() {
        assert_eq!(Reply::parse(line).expect(line).to_line().expect("JSON"), line);
    }
}
