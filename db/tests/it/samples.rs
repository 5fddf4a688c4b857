//! What the tests put into a store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use db::snapshot::CampaignKind;
use db::{Access, Change, NewCampaign, Owner, Run, Store};
use search::Architecture;
use search::campaign::{Candidate, CandidateState, Trained};
use search::config::LatencyConfig;
use search::latency::{Conditions, Dtype, LatencyEntry, LatencyKey, Phase, Timing, parts};
use search::subject::Subject;
use search::value::{Value, Values};
use search::wire::{LayerRetrieval, Memory};

/// An empty folder of this name, for one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("db").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn campaign(name: &str) -> NewCampaign {
    NewCampaign {
        name: name.to_owned(),
        config_toml: format!("name = \"{name}\" # ü\n"),
        config_folder: "/data/πρ".to_owned(),
        seed: u64::MAX - 6,
        evaluations: 24,
        tokens: 1 << 40,
        target_tokens: 1 << 40,
        kind: CampaignKind::Stacks,
        objectives: ["bits_per_byte", "decode_us"].map(|text| text.parse().unwrap()).to_vec(),
        latency: LatencyConfig { decode_budget_us: Some(123.5), ..LatencyConfig::default() },
    }
}

/// A store with one campaign in it, taken by this process.
pub(crate) async fn store(folder: &str) -> (Store, Run) {
    let path = self::folder(folder).join("test.db");
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    store.create_campaign(&campaign("one")).await.unwrap();
    let run = store.begin_run("one", &Owner::current(), "0.1.0").await.unwrap();
    (store, run)
}

/// Different numbers are different architectures.
pub(crate) fn architecture(number: u32) -> Architecture {
    let width = 16 + number;
    format!("d=64,vocab=256,tied | 2*gdn(h=1,k=16,v=32)+ffn({width}) | swa(h=2,kv=1,k=16,w=63)")
        .parse()
        .unwrap()
}

pub(crate) fn proposed(number: u32) -> Candidate {
    Candidate {
        number,
        subject: Subject::Stack(architecture(number)),
        reference: None,
        origin: "random".to_owned(),
        state: CandidateState::Proposed,
        failed_attempts: 0,
        given_up: false,
        values: Values::from_iter([(
            "parameters".into(),
            Value { mean: 12_345.0, standard_error: None },
        )]),
        fidelity: 0,
        trained: Vec::new(),
        whole: BTreeMap::new(),
        earlier: BTreeMap::new(),
        sums: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
        seed: 7,
        tokens: 0,
        train_seconds: 0.0,
        checkpoint: None,
    }
}

pub(crate) fn done(number: u32, bits_per_byte: f64, decode_us: f64) -> Candidate {
    let mut candidate = proposed(number);
    candidate.state = CandidateState::Done;
    let value = |mean| Value { mean, standard_error: Some(0.01) };
    candidate.values.insert("bits_per_byte".into(), value(bits_per_byte));
    candidate.values.insert("decode_us".into(), value(decode_us));
    candidate.fidelity = 1 << 40;
    let trained = |tokens, seed, mean| Trained {
        tokens,
        seed,
        values: Values::from_iter([("bits_per_byte".into(), value(mean))]),
        parts: BTreeMap::from([("bits_per_byte".to_owned(), vec![1.5, -0.25, f32::MIN_POSITIVE])]),
        seconds: 6.125,
    };
    candidate.trained =
        vec![trained(1 << 20, 7, bits_per_byte + 1.0), trained(1 << 40, 7, bits_per_byte)];
    candidate.whole.insert("decode_us".to_owned(), timing(decode_us * 1.02));
    candidate.earlier.insert("decode_us".to_owned(), timing(decode_us * 0.99));
    candidate.sums.insert("decode_us".to_owned(), decode_us * 0.98);
    candidate.curve = vec![(1024, 5.5), (2048, 4.25), (1 << 40, 1.0)];
    candidate.retrieval = vec![LayerRetrieval {
        layer: 0,
        memory: Memory::Mixer,
        snr: vec![(2, 17.5), (1000, 0.25)],
        queries: vec![(2, 3.0)],
    }];
    candidate.tokens = 1 << 40;
    candidate.train_seconds = 12.25;
    candidate.checkpoint = Some("/data/checkpoint.safetensors".into());
    candidate
}

pub(crate) fn timing(median_us: f64) -> Timing {
    Timing {
        median_us,
        spread_us: 0.5,
        samples: 99,
        other_load: 0.03,
        kernels: "cpu-1".to_owned(),
        millijoules: (median_us > 20.0).then_some(median_us / 3.0),
    }
}

pub(crate) fn latency(median_us: f64) -> LatencyEntry {
    let part = parts(&architecture(1)).next().unwrap();
    let conditions = Conditions {
        device: "cpu: a \"quoted\" one".to_owned(),
        dtype: Dtype::F32,
        batch: 1,
        threads: 1,
        phase: Phase::Decode { context: 512 },
    };
    LatencyEntry {
        key: LatencyKey { part, working_set_kib: 8, before_ffn: true, conditions },
        timing: timing(median_us),
    }
}

pub(crate) fn event(kind: &str) -> Change {
    Change::Event { kind: kind.to_owned(), body: "it's {\"so\"}".to_owned() }
}
