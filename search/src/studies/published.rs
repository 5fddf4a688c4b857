//! The studies: stacks, claims and their sources. All are of width 64 to 128 and a few layers, so that a study takes minutes.

use super::study::{Arm, Expected, Finding, Made, Study};
use crate::config::{TaskConfig, TaskKind};
use crate::metric::Metric;
use crate::references::Reference;

/// Every study, in the order of lists.
pub fn studies() -> Vec<Study> {
    vec![ratio(), placement(), hybrids(), nope(), gate(), turning(), memory(), depth()]
}

fn arm(name: &'static str, stack: &str) -> Arm {
    Arm { name, made: Made::Given(stack.parse().expect("a test parses them all")) }
}

const BITS: &str = "bits_per_byte";

/// That an arm models text better than another.
fn better(claim: &'static str, of: &'static str, than: &'static str) -> Finding {
    Finding { claim, value: BITS, of, than, expected: Expected::Less }
}

/// Of text, for each training.
const TOKENS: u64 = 262_144;

/// Eight pairs of sixteen symbols, in 800 steps.
fn recall() -> TaskConfig {
    TaskConfig {
        tokens: 64 * 32 * 800,
        batch: 64,
        sequence_length: 32,
        symbols: 16,
        items: 8,
        ..TaskConfig::new(TaskKind::Mqar)
    }
}

fn ratio() -> Study {
    let recalls =
        |claim, of, than, expected| Finding { claim, value: "mqar_accuracy", of, than, expected };
    Study {
        name: "ratio",
        title: "How much attention recall asks for",
        published: "From no attention to all of it language modelling hardly changes, but recall grows with each layer of \
                    attention, up to about one in four; a hybrid of three Gated DeltaNet layers to one of attention recalls as \
                    a transformer does (arXiv 2507.06457, 340 M and 1.3 B parameters).",
        arms: vec![
            arm("none", "d=64,vocab=256,tied | 4*gdn(h=1,k=16,v=16)"),
            arm("one-in-four", "d=64,vocab=256,tied | 3*gdn(h=1,k=16,v=16) | attn(h=2,kv=2,k=32)"),
            arm(
                "one-in-two",
                "d=64,vocab=256,tied | gdn(h=1,k=16,v=16) | attn(h=2,kv=2,k=32) | gdn(h=1,k=16,v=16) | attn(h=2,kv=2,k=32)",
            ),
            arm("all", "d=64,vocab=256,tied | 4*attn(h=2,kv=2,k=32)"),
        ],
        findings: vec![
            recalls(
                "one layer of attention in four recalls more than none",
                "one-in-four",
                "none",
                Expected::More,
            ),
            recalls(
                "one in four recalls as much as attention alone, to 0.05",
                "one-in-four",
                "all",
                Expected::Alike(0.05),
            ),
            Finding {
                claim: "one in four models text as well as none, to 0.02 bits per byte",
                value: BITS,
                of: "one-in-four",
                than: "none",
                expected: Expected::Alike(0.02),
            },
        ],
        tasks: vec![recall()],
        tokens: TOKENS,
        seeds: 3,
        beside: &[Metric::Parameters, Metric::CacheBytes],
    }
}

fn placement() -> Study {
    let than_first = |claim, of| better(claim, of, "first");
    Study {
        name: "placement",
        title: "Where the one layer of attention stands",
        published: "A hybrid's attention belongs in the middle of the stack or behind it, not in front (arXiv 2510.04800; Mamba \
                    hybrids begin with Mamba2, arXiv 2406.07887).",
        arms: vec![
            arm(
                "first",
                "d=64,vocab=256,tied | attn(h=4,kv=4,k=16)+ffn(192) | 3*gdn(h=3,k=16,v=32)+ffn(192)",
            ),
            arm(
                "second",
                "d=64,vocab=256,tied | gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16)+ffn(192) | 2*gdn(h=3,k=16,v=32)+ffn(192)",
            ),
            arm(
                "third",
                "d=64,vocab=256,tied | 2*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16)+ffn(192) | gdn(h=3,k=16,v=32)+ffn(192)",
            ),
            arm(
                "last",
                "d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16)+ffn(192)",
            ),
        ],
        findings: vec![
            than_first("attention as second of four layers is better than as first", "second"),
            than_first("attention as third of four layers is better than as first", "third"),
            than_first("attention as last of four layers is better than as first", "last"),
        ],
        tasks: Vec::new(),
        tokens: TOKENS,
        seeds: 5,
        beside: &[Metric::Parameters],
    }
}

fn hybrids() -> Study {
    Study {
        name: "hybrids",
        title: "Hybrids, and what they are made of",
        published: "Three layers of Gated DeltaNet to one of attention model text better than Gated DeltaNet alone, that better than a \
                    transformer, and a transformer better than the same hybrid of Mamba2 (Olmo Hybrid, arXiv 2604.03444).",
        // The widths of the FFNs make all as large.
        arms: vec![
            arm(
                "hybrid-gdn",
                "d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16)+ffn(192)",
            ),
            arm("gdn", "d=64,vocab=256,tied | 4*gdn(h=3,k=16,v=32)+ffn(180)"),
            arm("transformer", "d=64,vocab=256,tied | 4*attn(h=4,kv=4,k=16)+ffn(229)"),
            arm(
                "hybrid-mamba2",
                "d=64,vocab=256,tied | 3*m2(h=4,p=32,n=16)+ffn(185) | attn(h=4,kv=4,k=16)+ffn(185)",
            ),
        ],
        findings: vec![
            better(
                "a hybrid of Gated DeltaNet is better than Gated DeltaNet alone",
                "hybrid-gdn",
                "gdn",
            ),
            better("Gated DeltaNet alone is better than a transformer", "gdn", "transformer"),
            better(
                "a transformer is better than a hybrid of Mamba2",
                "transformer",
                "hybrid-mamba2",
            ),
        ],
        tasks: Vec::new(),
        tokens: TOKENS,
        seeds: 5,
        beside: &[Metric::Parameters],
    }
}

fn nope() -> Study {
    Study {
        name: "nope",
        title: "Attention without positions, at four times the length",
        published: "Without positions attention goes on beyond the length that it was trained on, where rotary positions fail \
                    (arXiv 2305.19466); in a hybrid the recurrent layers tell the order, and nothing is lost at the trained length \
                    (Kimi Linear, arXiv 2510.26692; Olmo Hybrid, arXiv 2604.03444).",
        arms: vec![
            arm(
                "hybrid-rotary",
                "d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16)+ffn(192)",
            ),
            arm(
                "hybrid-nope",
                "d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16,rot=0)+ffn(192)",
            ),
            arm("attention-rotary", "d=64,vocab=256,tied | 4*attn(h=4,kv=4,k=16)+ffn(192)"),
            arm("attention-nope", "d=64,vocab=256,tied | 4*attn(h=4,kv=4,k=16,rot=0)+ffn(192)"),
        ],
        findings: vec![
            Finding {
                claim: "a hybrid loses nothing without positions at the trained length, to 0.01",
                value: BITS,
                of: "hybrid-nope",
                than: "hybrid-rotary",
                expected: Expected::Alike(0.01),
            },
            Finding {
                claim: "at four times the length a hybrid without positions is better",
                value: "bits_per_byte_x4",
                of: "hybrid-nope",
                than: "hybrid-rotary",
                expected: Expected::Less,
            },
            Finding {
                claim: "attention alone needs positions at the trained length",
                value: BITS,
                of: "attention-nope",
                than: "attention-rotary",
                expected: Expected::More,
            },
            Finding {
                claim: "at four times the length attention alone is better without positions",
                value: "bits_per_byte_x4",
                of: "attention-nope",
                than: "attention-rotary",
                expected: Expected::Less,
            },
        ],
        tasks: Vec::new(),
        tokens: TOKENS,
        seeds: 5,
        beside: &[Metric::Parameters],
    }
}

fn gate() -> Study {
    Study {
        name: "gate",
        title: "A gate on what attention says",
        published: "The heads' outputs times a sigmoid of the layer's input lower the loss, by more than as many parameters \
                    elsewhere do (arXiv 2505.06708, 1.7 B and 15 B parameters).",
        // 64 · 64 weights of a gate are those of 21⅓ channels of an FFN.
        arms: vec![
            arm("attention", "d=64,vocab=256,tied | 4*attn(h=4,kv=4,k=16)+ffn(213)"),
            arm("attention-gated", "d=64,vocab=256,tied | 4*attn(h=4,kv=4,k=16,gate)+ffn(192)"),
            arm(
                "hybrid",
                "d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16)+ffn(213)",
            ),
            arm(
                "hybrid-gated",
                "d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192) | attn(h=4,kv=4,k=16,gate)+ffn(192)",
            ),
        ],
        findings: vec![
            better(
                "attention with a gate is better than with as many more parameters in its FFNs",
                "attention-gated",
                "attention",
            ),
            better("so it is for the one attention layer of a hybrid", "hybrid-gated", "hybrid"),
        ],
        tasks: Vec::new(),
        tokens: TOKENS,
        seeds: 5,
        beside: &[Metric::Parameters],
    }
}

fn turning() -> Study {
    // Without the short convolutions, which tell neighbours apart by themselves.
    let stack = |name, forms: &str| {
        arm(name, &format!("d=64,vocab=256,tied | 2*dn(h=2,k=16,v=32,noconv{forms})+ffn(128)"))
    };
    let parity = TaskConfig {
        tokens: 64 * 24 * 1000,
        batch: 64,
        sequence_length: 24,
        extrapolate: vec![2, 4],
        ..TaskConfig::new(TaskKind::Parity)
    };
    let copying = TaskConfig {
        tokens: 64 * 32 * 1000,
        batch: 64,
        sequence_length: 32,
        symbols: 8,
        items: 6,
        extrapolate: vec![2, 4],
        ..TaskConfig::new(TaskKind::SelectiveCopying)
    };
    let more =
        |claim, value, of| Finding { claim, value, of, than: "none", expected: Expected::More };
    let less = |claim, of| better(claim, of, "none");
    Study {
        name: "turning",
        title: "Queries and keys that turn by what is read",
        published: "Selective RoPE lets a linear layer with eigenvalues in [0, 1] track parity beyond the length it was trained on, \
                    copies better, and lowers the loss on text; a gate and a bias of the phases help some tasks (arXiv 2511.17388).",
        arms: vec![
            stack("none", ""),
            stack("plain", ",srope"),
            stack("gated", ",srope,pgate"),
            stack("whole", ",srope,pgate,pbias,pfull,ptemp=learnt"),
        ],
        findings: vec![
            more(
                "with Selective RoPE parity is tracked at four times the length",
                "parity_x4_accuracy",
                "plain",
            ),
            more(
                "with its gate, bias, full rank and learnt temperatures it is, too",
                "parity_x4_accuracy",
                "whole",
            ),
            more(
                "with Selective RoPE more is copied at twice the length",
                "selective_copying_x2_accuracy",
                "plain",
            ),
            more(
                "with all parts of it more is copied at twice the length",
                "selective_copying_x2_accuracy",
                "whole",
            ),
            less("text is modelled better with Selective RoPE", "plain"),
            less("text is modelled better with it and a phase gate", "gated"),
            less("text is modelled better with all parts of it", "whole"),
        ],
        tasks: vec![parity, copying],
        tokens: TOKENS,
        seeds: 3,
        beside: &[Metric::Parameters],
    }
}

fn memory() -> Study {
    let more =
        |claim, value, of| Finding { claim, value, of, than: "mamba2", expected: Expected::More };
    let snr = Metric::RetrievalSnr.name();
    Study {
        name: "memory",
        title: "What memories read back of what they stored",
        published: "A linear memory of K rows reads one of N pairs with a signal K / N times as strong as the noise, softmax with one that \
                    grows with the exponential of its width; the delta rule erases before it writes, and its noise is less (arXiv \
                    2505.19488). A state for each piece of the past keeps near ones apart (arXiv 2506.04761).",
        arms: vec![
            arm("mamba2", "d=64,vocab=256,tied | 2*m2(h=2,p=16,n=16)"),
            arm("log-linear-mamba2", "d=64,vocab=256,tied | 2*lm2(h=2,p=16,n=16,l=6)"),
            arm("gated-deltanet", "d=64,vocab=256,tied | 2*gdn(h=2,k=16,v=16)"),
            arm("deltanet", "d=64,vocab=256,tied | 2*dn(h=2,k=16,v=16)"),
            arm("attention", "d=64,vocab=256,tied | 2*attn(h=2,kv=2,k=16)"),
        ],
        findings: vec![
            more("softmax attention reads back better than a linear memory", snr, "attention"),
            more("the delta rule reads back better than a sum", snr, "deltanet"),
            more("a log-linear memory reads back better than one state", snr, "log-linear-mamba2"),
            more("softmax attention recalls more", "mqar_accuracy", "attention"),
            more("the delta rule recalls more", "mqar_accuracy", "deltanet"),
        ],
        tasks: vec![recall()],
        tokens: 0,
        seeds: 3,
        beside: &[Metric::Parameters],
    }
}

fn depth() -> Study {
    let as_fast = |name, layers| Arm {
        name,
        made: Made::AsFast { reference: Reference::GatedDeltaNet, layers },
    };
    Study {
        name: "depth",
        title: "Depth and width, for a size and for a time",
        published: "For a number of parameters deeper is better; for a latency there is an optimum in between, as every layer \
                    costs time beside its weights (Nemotron-Flash, arXiv 2511.18890).",
        arms: vec![
            arm("4-layers", "d=96,vocab=256,tied | 4*gdn(h=2,k=32,v=64)+ffn(288)"),
            arm("2-layers-as-large", "d=136,vocab=256,tied | 2*gdn(h=3,k=32,v=64)+ffn(384)"),
            arm("8-layers-as-large", "d=68,vocab=256,tied | 8*gdn(h=2,k=24,v=48)+ffn(200)"),
            as_fast("1-layer-as-fast", 1),
            as_fast("2-layers-as-fast", 2),
            as_fast("8-layers-as-fast", 8),
            as_fast("16-layers-as-fast", 16),
        ],
        findings: vec![
            better(
                "with as many parameters 4 layers are better than 2",
                "4-layers",
                "2-layers-as-large",
            ),
            better(
                "with as many parameters 8 layers are better than 4",
                "8-layers-as-large",
                "4-layers",
            ),
            better("in the same time 4 layers are better than 1", "4-layers", "1-layer-as-fast"),
            better("in the same time 4 layers are better than 16", "4-layers", "16-layers-as-fast"),
        ],
        tasks: Vec::new(),
        tokens: TOKENS,
        seeds: 3,
        beside: &[Metric::Parameters, Metric::DecodeUs],
    }
}
