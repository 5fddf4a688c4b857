//! Megatron-core's `HybridModel`: the arguments of its training script with the pattern of layers, where each kind has one size,
//! and the list of layer configs, which has sizes for every layer. No weights: it trains from its own beginning.

use std::fmt::Write as _;

use search::Architecture;
use search::architecture::{CONV_WIDTH, Ffn, FfnKind, Mixer, QkNorm};
use search::targets::{attention_of, first};
use serde_json::{Map, Value, json};

use super::transformers::EPS;

/// A layer of theirs: a mixer or an FFN.
struct Part {
    symbol: char,
    /// Its fields, those of `TransformerConfig`.
    sizes: Map<String, Value>,
}

/// The class of a layer's config.
fn class(symbol: char) -> &'static str {
    match symbol {
        'M' => "MambaLayerConfig",
        'G' => "GDNLayerConfig",
        '*' => "AttentionLayerConfig",
        _ => "MLPLayerConfig",
    }
}

fn part(symbol: char, sizes: Value) -> Part {
    let Value::Object(sizes) = sizes else { unreachable!("made of objects") };
    Part { symbol, sizes }
}

fn mixer(mixer: &Mixer) -> Part {
    match mixer {
        Mixer::Attention(of) => part(
            '*',
            json!({
                "num_attention_heads": of.heads,
                "num_query_groups": of.kv_heads,
                "kv_channels": of.head_width,
                "qk_layernorm": of.qk_norm == QkNorm::Head,
                "attention_output_gate": of.output_gate,
                // the positions before the current one, and after it
                "window_size": of.window.map(|window| [window - 1, 0]),
            }),
        ),
        Mixer::Delta(of) => part(
            'G',
            json!({
                "linear_conv_kernel_dim": CONV_WIDTH,
                "linear_key_head_dim": of.key_width,
                "linear_value_head_dim": of.value_width,
                "linear_num_key_heads": of.heads,
                "linear_num_value_heads": of.value_heads(),
            }),
        ),
        Mixer::Mamba2(of) => part(
            'M',
            json!({
                "mamba_state_dim": of.state_width,
                "mamba_head_dim": of.head_width,
                "mamba_num_heads": of.heads,
                "mamba_num_groups": 1,
            }),
        ),
        _ => unreachable!("an obstacle"),
    }
}

fn feed_forward(ffn: Ffn) -> Part {
    let is_gated = ffn.kind == FfnKind::SwiGlu;
    part('-', json!({ "ffn_hidden_size": ffn.width, "gated_linear_unit": is_gated }))
}

/// Their layers, first to last.
fn parts(stack: &Architecture) -> Vec<Part> {
    let of_layer = |layer: &search::architecture::Layer| {
        let mixer = layer.mixer.as_ref().map(mixer);
        mixer.into_iter().chain(layer.ffn.map(feed_forward)).collect::<Vec<_>>()
    };
    stack.layers().iter().flat_map(of_layer).collect()
}

/// Whether the parts of each kind have one size: full attention beside one window is a list of its own.
fn has_one_size_of_each(parts: &[Part]) -> bool {
    let without_window = |part: &Part| {
        let mut sizes = part.sizes.clone();
        sizes.remove("window_size");
        sizes
    };
    let windows: Vec<&Value> = parts
        .iter()
        .filter_map(|part| part.sizes.get("window_size").filter(|window| !window.is_null()))
        .collect();
    let is_gated = |part: &&Part| part.sizes.get("gated_linear_unit") == Some(&json!(true));
    // the activation of FFNs is that of Gated DeltaNet, too
    let silu = parts.iter().filter(|part| part.symbol == '-').all(|part| is_gated(&part));
    let has_delta = parts.iter().any(|part| part.symbol == 'G');
    windows.windows(2).all(|pair| pair[0] == pair[1])
        && (silu || !has_delta)
        && parts.iter().all(|part| {
            let first = parts.iter().find(|other| other.symbol == part.symbol);
            first.is_some_and(|first| without_window(first) == without_window(part))
        })
}

/// Its files, by name.
pub(crate) fn files(stack: &Architecture) -> Vec<(String, String)> {
    let parts = parts(stack);
    vec![
        ("arguments.sh".to_owned(), arguments(stack, &parts)),
        ("layers.py".to_owned(), layers(stack, &parts)),
    ]
}

/// The words of `pretrain_hybrid.py` that describe the model.
fn arguments(stack: &Architecture, parts: &[Part]) -> String {
    let is_uniform = has_one_size_of_each(parts);
    let pattern: String = parts.iter().map(|part| part.symbol).collect();
    let mut words: Vec<String> = Vec::new();
    let mut add = |word: &str, value: &dyn std::fmt::Display| words.push(format!("{word} {value}"));
    if is_uniform {
        add("--hybrid-layer-pattern", &format!("'{pattern}'"));
    }
    add("--spec", &"megatron.core.models.hybrid.hybrid_layer_specs hybrid_stack_spec");
    add("--hidden-size", &stack.d_model());
    add("--vocab-size", &stack.vocab());
    add("--make-vocab-size-divisible-by", &1);
    add("--normalization", &"RMSNorm");
    add("--norm-epsilon", &EPS);
    let attention = first(stack, attention_of);
    match attention {
        None => add("--num-attention-heads", &1),
        Some(of) => {
            add("--num-attention-heads", &of.heads);
            add("--group-query-attention", &"");
            add("--num-query-groups", &of.kv_heads);
            add("--kv-channels", &of.head_width);
        }
    }
    for part in ['-', 'G', 'M'] {
        let Some(part) = parts.iter().find(|other| other.symbol == part) else { continue };
        for (name, value) in &part.sizes {
            match (name.as_str(), value) {
                ("gated_linear_unit", Value::Bool(true)) => add("--swiglu", &""),
                ("gated_linear_unit", _) => add("--squared-relu", &""),
                _ => add(&format!("--{}", name.replace('_', "-")), value),
            }
        }
    }
    if !parts.iter().any(|part| part.symbol == '-') {
        // SiLU, which Gated DeltaNet has from here
        add("--swiglu", &"");
    }
    positions(stack, parts, &mut add);
    if is_uniform {
        windows(parts, &mut add);
    }
    if attention.is_some_and(|of| of.qk_norm == QkNorm::Head) {
        add("--qk-layernorm", &"");
    }
    if attention.is_some_and(|of| of.output_gate) {
        add("--attention-output-gate", &"");
    }
    add("--disable-bias-linear", &"");
    add("--attention-dropout", &0);
    add("--hidden-dropout", &0);
    if !stack.tied_embeddings() {
        add("--untie-embeddings-and-output-weights", &"");
    }
    let about = if is_uniform {
        "# pretrain_hybrid.py \"${MODEL[@]}\" and how it is trained. layers.py says the same layer by layer."
    } else {
        "# The layers have sizes of their own, which no pattern has: HybridModel takes them from layers.py. Here is what they share."
    };
    let lines: Vec<&str> = words.iter().map(|line| line.trim_end()).collect();
    format!("# {stack}\n{about}\nMODEL=(\n  {}\n)\n", lines.join("\n  "))
}

type Add<'a> = dyn FnMut(&str, &dyn std::fmt::Display) + 'a;

/// Rotary positions, and which layers have none.
fn positions(stack: &Architecture, parts: &[Part], add: &mut Add<'_>) {
    let turning = first(stack, |mixer| attention_of(mixer).filter(|of| of.rotary_width() > 0));
    let Some(of) = turning else {
        add("--position-embedding-type", &"none");
        return;
    };
    add("--position-embedding-type", &"rope");
    add("--rotary-percent", &(f64::from(of.rotary_width()) / f64::from(of.head_width)));
    add("--rotary-base", &of.rope_theta);
    let mut mixers = stack.layers().iter().filter_map(|layer| layer.mixer.as_ref());
    let mut none = |part: &Part| {
        let mixer = if part.symbol == '-' { None } else { mixers.next() };
        u8::from(mixer.and_then(attention_of).is_some_and(|of| of.rotary_width() == 0))
    };
    let none: Vec<u8> = parts.iter().map(&mut none).collect();
    if none.contains(&1) {
        add("--no-rope-freq", &list(&none));
    }
}

/// A list without blanks, which its parser refuses.
fn list(numbers: &[u8]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u8::to_string).collect();
    format!("'[{}]'", numbers.join(","))
}

/// The window, and which layers have it.
fn windows(parts: &[Part], add: &mut Add<'_>) {
    let window =
        |part: &Part| part.sizes.get("window_size").filter(|value| !value.is_null()).cloned();
    let Some(Value::Array(size)) = parts.iter().find_map(window) else { return };
    let has: Vec<u8> = parts.iter().map(|part| u8::from(window(part).is_some())).collect();
    add("--window-size", &format!("{},{}", size[0], size[1]));
    add("--window-attn-skip-freq", &list(&has));
}

/// The list of layer configs, as Python.
fn layers(stack: &Architecture, parts: &[Part]) -> String {
    let mut list = String::new();
    for part in parts {
        let sizes: Vec<String> = part
            .sizes
            .iter()
            .map(|(name, value)| format!("\"{name}\": {}", python(value)))
            .collect();
        let activation = match part.sizes.get("gated_linear_unit") {
            Some(Value::Bool(false)) => ", \"activation_func\": squared_relu",
            Some(_) => ", \"activation_func\": silu",
            // its convolutions and its gate have this activation
            None if part.symbol == 'G' => ", \"activation_func\": silu",
            None => "",
        };
        writeln!(list, "    ({}, {{{}{activation}}}),", class(part.symbol), sizes.join(", "))
            .expect("texts take everything");
    }
    LAYERS_PY.replace("{stack}", &stack.to_string()).replace("{layers}", &list)
}

/// JSON as Python.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Array(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(python).collect();
            format!("({})", numbers.join(", "))
        }
        other => other.to_string(),
    }
}

const LAYERS_PY: &str = include_str!("megatron/layers.py");
