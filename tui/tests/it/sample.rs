//! Campaigns with fixed, plausible numbers: what the screens are tried on.

use std::collections::BTreeMap;

use db::snapshot::{Campaign, CampaignKind, CampaignState, Candidate, Snapshot};
use search::Architecture;
use search::campaign;
use search::campaign::CandidateState;
use search::campaign::findings::Agreement;
use search::campaign::prediction::Backtest;
use search::config::LatencyConfig;
use search::latency::Timing;
use search::objective::Objective;
use search::statistics::Correlation;
use search::subject::Subject;
use search::value::{Value, Values};
use search::wire::{LayerRetrieval, Memory};

/// (origin, state, architecture after the head of the line, decode µs, bits per byte)
type Row = (&'static str, &'static str, &'static str, f64, f64);

const ROWS: [Row; 30] = [
    ("reference full attention", "done", "6*attn(h=4,kv=4,k=64)+ffn(768)", 412.0, 2.251),
    ("reference gated deltanet", "done", "6*gdn(h=3,k=64,v=128)+ffn(768)", 334.0, 2.214),
    (
        "reference swa full",
        "done",
        "swa(h=4,kv=4,k=64,w=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768) | swa(h=4,kv=4,k=64,w=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768) | swa(h=4,kv=4,k=64,w=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768)",
        371.0,
        2.236,
    ),
    ("random", "done", "2*dn(h=4,k=64,v=64)+ffn(512) | m2(h=8,p=64,n=64)+ffn(768)", 188.0, 2.402),
    (
        "random",
        "done",
        "m2(h=8,p=64,n=64) | swa(h=4,kv=2,k=64,w=64)+ffn(512) | gdn(h=2,k=64,v=64)+ffn(512)",
        171.0,
        2.441,
    ),
    ("random", "infeasible", "12*attn(h=8,kv=8,k=64)+ffn(1024)", 988.0, 0.0),
    (
        "random",
        "done",
        "3*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=128)+ffn(768)",
        229.0,
        2.268,
    ),
    ("random", "failed", "2*m2(h=8,p=64,n=128)+ffn(1024)", 214.0, 0.0),
    ("random", "done", "dn(h=2,k=32,v=32)+ffn(256)", 74.2, 2.871),
    ("random", "done", "4*m2(h=8,p=32,n=32)", 143.0, 2.583),
    (
        "mutation of 7: layer 4 window 128 → 64",
        "done",
        "3*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=64)+ffn(768)",
        226.0,
        2.262,
    ),
    ("mutation of 9: layer 1 mixer dn → gdn", "done", "gdn(h=2,k=32,v=32)+ffn(256)", 76.8, 2.811),
    (
        "recombination of 7 and 4",
        "done",
        "2*gdn(h=3,k=64,v=128)+ffn(768) | m2(h=8,p=64,n=64)+ffn(768)",
        201.0,
        2.298,
    ),
    ("mutation of 12: layer 2 added", "done", "2*gdn(h=2,k=32,v=32)+ffn(256)", 98.4, 2.612),
    ("mutation of 10: layer 4 removed", "done", "3*m2(h=8,p=32,n=32)", 118.0, 2.664),
    (
        "recombination of 14 and 11",
        "done",
        "2*gdn(h=2,k=32,v=32)+ffn(256) | swa(h=4,kv=2,k=64,w=64)+ffn(768)",
        137.0,
        2.437,
    ),
    (
        "mutation of 13: layer 3 ffn 768 → 512",
        "done",
        "2*gdn(h=3,k=64,v=128)+ffn(768) | m2(h=8,p=64,n=64)+ffn(512)",
        189.0,
        2.311,
    ),
    (
        "mutation of 11: layer 1 value width 128 → 64",
        "done",
        "gdn(h=3,k=64,v=64)+ffn(768) | 2*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=64)+ffn(768)",
        217.0,
        2.271,
    ),
    (
        "mutation of 16: layer 2 ffn 256 → 512",
        "done",
        "gdn(h=2,k=32,v=32)+ffn(256) | gdn(h=2,k=32,v=32)+ffn(512) | swa(h=4,kv=2,k=64,w=64)+ffn(768)",
        148.0,
        2.401,
    ),
    (
        "recombination of 17 and 19",
        "done",
        "gdn(h=2,k=32,v=32)+ffn(512) | gdn(h=3,k=64,v=128)+ffn(768) | m2(h=8,p=64,n=64)+ffn(512)",
        166.0,
        2.349,
    ),
    (
        "mutation of 20: layer 3 mixer m2 → swa",
        "done",
        "gdn(h=2,k=32,v=32)+ffn(512) | gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=64)+ffn(512)",
        158.0,
        2.342,
    ),
    (
        "mutation of 2: layer 6 mixer gdn → attn",
        "done",
        "5*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768)",
        338.0,
        2.193,
    ),
    (
        "mutation of 22: layer 6 kv heads 4 → 2",
        "done",
        "5*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768)",
        322.0,
        2.196,
    ),
    (
        "mutation of 23: layer 1 removed",
        "done",
        "4*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768)",
        279.0,
        2.221,
    ),
    (
        "mutation of 24: layer 2 mixer gdn → attn",
        "failed",
        "gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768) | 2*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768)",
        271.0,
        0.0,
    ),
    (
        "mutation of 21: layer 2 doubled",
        "done",
        "gdn(h=2,k=32,v=32)+ffn(512) | 2*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=64)+ffn(512)",
        196.0,
        2.279,
    ),
    (
        "recombination of 26 and 24",
        "done",
        "3*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768)",
        224.0,
        2.249,
    ),
    (
        "mutation of 23: layer 3 ffn 768 → 1024",
        "training",
        "2*gdn(h=3,k=64,v=128)+ffn(768) | gdn(h=3,k=64,v=128)+ffn(1024) | 2*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768)",
        336.0,
        0.0,
    ),
    (
        "mutation of 27: layer 1 mixer gdn → dn",
        "training",
        "dn(h=3,k=64,v=128)+ffn(768) | 2*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=2,k=64)+ffn(768)",
        221.0,
        0.0,
    ),
    (
        "mutation of 19: layer 1 head count 2 → 4",
        "proposed",
        "gdn(h=4,k=32,v=32)+ffn(256) | gdn(h=2,k=32,v=32)+ffn(512) | swa(h=4,kv=2,k=64,w=64)+ffn(768)",
        0.0,
        0.0,
    ),
];

const TOKENS: u64 = 262_144;

pub(crate) fn objectives(texts: &[&str]) -> Vec<Objective> {
    texts.iter().map(|text| text.parse().expect("the name of a value")).collect()
}

pub(crate) fn campaign(name: &str, state: CampaignState) -> Campaign {
    Campaign {
        name: name.to_owned(),
        state,
        evaluations: 32,
        seed: 7,
        kind: CampaignKind::Stacks,
        objectives: objectives(&["bits_per_byte", "decode_us"]),
        latency: LatencyConfig { decode_budget_us: Some(450.0), ..LatencyConfig::default() },
        tokens: TOKENS,
        target_tokens: TOKENS,
        created_unix_s: 1_795_000_000,
        active_seconds: 372.0,
        config_toml: String::new(),
    }
}

/// Thirty candidates of every state, in the middle of a run.
pub(crate) fn running() -> Snapshot {
    let mut candidates: Vec<Candidate> =
        ROWS.iter().enumerate().map(|(i, row)| candidate(i as u32 + 1, row)).collect();
    rank(&mut candidates);
    let agreements = vec![Agreement {
        value: "bits_per_byte".to_owned(),
        fewer: TOKENS / 8,
        more: TOKENS,
        pairs: 21,
        kendall: Some(Correlation { value: 0.724, low: 0.552, high: 0.837, pairs: 21 }),
        spearman: Some(Correlation { value: 0.891, low: 0.732, high: 0.958, pairs: 21 }),
    }];
    let predictions = vec![Backtest {
        value: "bits_per_byte".to_owned(),
        fewer: TOKENS / 8,
        more: TOKENS,
        candidates: 21,
        right: 0.833,
        right_predicted: 0.905,
        error: 0.0104,
        covered: 0.905,
    }];
    let campaign = campaign("speeches", CampaignState::Running);
    Snapshot {
        campaign,
        candidates,
        agreements,
        predictions,
        between_s: BTreeMap::new(),
        revision: 412,
    }
}

/// Nothing proposed yet.
pub(crate) fn empty() -> Snapshot {
    let campaign = Campaign { active_seconds: 0.0, ..campaign("speeches", CampaignState::Running) };
    Snapshot {
        campaign,
        candidates: Vec::new(),
        agreements: Vec::new(),
        predictions: Vec::new(),
        between_s: BTreeMap::new(),
        revision: 1,
    }
}

/// The first reference alone, done.
pub(crate) fn single() -> Snapshot {
    let mut snapshot = running();
    snapshot.candidates.truncate(1);
    snapshot.candidates[0].rank = Some(0);
    snapshot.agreements.clear();
    snapshot
}

/// Values far apart, one far out, a long name, a long stack.
pub(crate) fn extreme() -> Snapshot {
    let mut snapshot = running();
    snapshot.campaign.name =
        "a-campaign-with-a-name-that-is-longer-than-any-header-has-room-for".into();
    snapshot.campaign.active_seconds = 987_654.0;
    snapshot.campaign.latency.decode_budget_us = None;
    for (i, candidate) in snapshot.candidates.iter_mut().enumerate() {
        let factor = 10f64.powi(i as i32 % 7 - 2);
        if let Some(value) = candidate.row.values.get_mut("decode_us") {
            value.mean *= factor;
        }
        if i == 8
            && let Some(value) = candidate.row.values.get_mut("bits_per_byte")
        {
            value.mean = 8.0e5;
        }
        if i == 3 {
            let layers = (0..40)
                .map(|l| format!("gdn(h={},k=64,v=128)+ffn(768)", 1 + l * l % 7))
                .collect::<Vec<_>>();
            candidate.row.subject = Subject::Stack(parse(&layers.join(" | ")));
        }
    }
    rank(&mut snapshot.candidates);
    snapshot
}

/// Twenty points of a black box with one objective, one of them failed.
pub(crate) fn one_objective(objective: &str) -> Snapshot {
    let mut campaign = campaign("box", CampaignState::Finished);
    campaign.kind = CampaignKind::BlackBox;
    campaign.objectives = objectives(&[objective]);
    campaign.tokens = 0;
    let rows = running().candidates.into_iter().take(20).map(|Candidate { mut row, .. }| {
        let n = row.number;
        let subject = format!("{{\"b\":{n}}}");
        let cost = 10.0 + f64::from(n * 37 % 23) - 0.25 * f64::from(n);
        row.subject = subject.parse().expect("a point");
        row.reference = None;
        "random".clone_into(&mut row.origin);
        row.fidelity = 1;
        if n != 8 {
            row.state = CandidateState::Done;
        }
        let cost = Value { mean: cost, standard_error: None };
        row.values = Values::from_iter([("cost".into(), cost)]);
        row.whole.clear();
        row.curve.clear();
        row.retrieval.clear();
        row.tokens = 0;
        row
    });
    let candidates = Candidate::of(rows.collect(), &campaign);
    Snapshot {
        campaign,
        candidates,
        agreements: Vec::new(),
        predictions: Vec::new(),
        between_s: BTreeMap::new(),
        revision: 20,
    }
}

/// The same stacks, of which the throughput is to be large.
pub(crate) fn maximised() -> Snapshot {
    let mut snapshot = running();
    snapshot.campaign.objectives = objectives(&["-throughput", "bits_per_byte"]);
    for candidate in &mut snapshot.candidates {
        let values = &mut candidate.row.values;
        if let Some(decode) = values.get("decode_us").copied() {
            let mean = 1.6e7 / decode.mean;
            let standard_error = Some(0.02 * mean);
            values.insert("throughput".into(), Value { mean, standard_error });
        }
    }
    snapshot
}

pub(crate) fn parse(layers: &str) -> Architecture {
    format!("d=256,vocab=256,tied | {layers}")
        .parse()
        .expect("the sample's texts are architectures")
}

fn candidate(number: u32, &(origin, state, layers, decode_us, bits_per_byte): &Row) -> Candidate {
    let architecture = parse(layers);
    let parameters = search::tensors::tensors(&architecture)
        .iter()
        .map(search::tensors::TensorSpec::elements)
        .sum::<u64>() as f64;
    let mut values = Values::new();
    let mut put = |name: &str, mean: f64, standard_error: Option<f64>| {
        values.insert(name.into(), Value { mean, standard_error });
    };
    put("parameters", parameters, None);
    if decode_us > 0.0 {
        put("decode_us", decode_us, Some(decode_us * 0.006));
        put("prefill_us", decode_us * 71.3, Some(decode_us * 0.4));
    }
    if bits_per_byte > 0.0 {
        put("bits_per_byte", bits_per_byte, Some(0.004 + 0.0003 * f64::from(number)));
        put("validation_loss", bits_per_byte * std::f64::consts::LN_2, Some(0.004));
    }
    let part = match state {
        "done" => 1.0,
        "training" => 0.37 + 0.01 * f64::from(number),
        "failed" => 0.21,
        _ => 0.0,
    };
    let last = if bits_per_byte > 0.0 { bits_per_byte * std::f64::consts::LN_2 } else { 1.6 };
    let steps = 64_u32;
    let curve = (1..=(f64::from(steps) * part) as u32)
        .map(|i| {
            let tokens = TOKENS / u64::from(steps) * u64::from(i);
            let wave = 0.03 * (f64::from(i * (number + 3)) * 1.7).sin();
            (
                tokens,
                last + (5.5 - last) * (-f64::from(i) / 5.0).exp()
                    + 0.35 / f64::from(i).sqrt()
                    + wave,
            )
        })
        .collect();
    let timing = |median_us: f64| Timing {
        median_us,
        spread_us: median_us * 0.008,
        samples: 200,
        other_load: 0.02,
        kernels: "1".to_owned(),
        millijoules: None,
    };
    let id = architecture.id();
    let (mut whole, mut sums) = (BTreeMap::new(), BTreeMap::new());
    if state == "done" && number.is_multiple_of(2) {
        let decode = timing(decode_us * 1.021);
        let decode = Timing { millijoules: Some(0.11 * decode_us), ..decode };
        sums.insert("decode_us".to_owned(), decode_us);
        sums.insert("prefill_us".to_owned(), decode_us * 70.1);
        whole.insert("decode_us".to_owned(), decode);
        whole.insert("prefill_us".to_owned(), timing(decode_us * 70.1));
    }
    let row = campaign::Candidate {
        number,
        subject: Subject::Stack(architecture),
        reference: origin.strip_prefix("reference ").map(str::to_owned),
        origin: if origin.starts_with("reference") { "reference".to_owned() } else { origin.to_owned() },
        state: match state {
            "done" => CandidateState::Done,
            "training" => CandidateState::Training,
            "infeasible" => CandidateState::Infeasible {
                reason: "decode takes 988 µs per token, over the budget of 450 µs".to_owned(),
            },
            "failed" => CandidateState::Failed {
                kind: search::failure::FailureKind::Diverged,
                reason: "the loss is not finite at step 27".to_owned(),
                log: "step 25  loss 3.912  11840 tok/s\nstep 26  loss 7.402  11793 tok/s\nstep 27  loss NaN\n\
                      error: the loss is not finite at step 27; a lower learning_rate may help\n"
                    .to_owned(),
            },
            _ => CandidateState::Proposed,
        },
        failed_attempts: 0,
        given_up: false,
        values,
        fidelity: if state == "done" { TOKENS } else { 0 },
        trained: Vec::new(),
        whole,
        earlier: BTreeMap::new(),
        sums,
        curve,
        retrieval: if state == "done" { retrieval(number) } else { Vec::new() },
        seed: 7_000 + u64::from(number),
        tokens: (TOKENS as f64 * part) as u64,
        train_seconds: 11.4 * part,
        checkpoint: None,
    };
    let disturbed = (number == 8).then(|| "decode_us".to_owned()).into_iter().collect();
    Candidate { row, id, disturbed, rank: None, foretold: Values::new() }
}

/// Of the first two layers.
fn retrieval(number: u32) -> Vec<LayerRetrieval> {
    let layer = |layer: u32| {
        let snr = |pairs: u32| f64::from(40 + number) / f64::from(pairs * (layer + 1));
        let points = |part: f64| [2, 4, 8, 16, 32, 64].map(|n| (n, part * snr(n))).to_vec();
        LayerRetrieval { layer, memory: Memory::Mixer, snr: points(1.0), queries: points(0.5) }
    };
    vec![layer(0), layer(1)]
}

/// Peels fronts off the done candidates.
fn rank(candidates: &mut [Candidate]) {
    for candidate in candidates.iter_mut() {
        candidate.rank = None;
    }
    let at = |c: &Candidate| {
        (c.row.values[&"decode_us".into()].mean, c.row.values[&"bits_per_byte".into()].mean)
    };
    let mut left: Vec<usize> = (0..candidates.len())
        .filter(|&i| candidates[i].row.state == CandidateState::Done)
        .collect();
    for rank in 0.. {
        if left.is_empty() {
            break;
        }
        let dominated = |&i: &usize| {
            left.iter().any(|&j| {
                let (a, b) = (at(&candidates[j]), at(&candidates[i]));
                a != b && a.0 <= b.0 && a.1 <= b.1
            })
        };
        let (rest, front): (Vec<usize>, Vec<usize>) = left.iter().partition(|i| dominated(i));
        for i in front {
            candidates[i].rank = Some(rank);
        }
        left = rest;
    }
}
