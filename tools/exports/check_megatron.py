#!/usr/bin/env python3
"""Reads exported folders with Megatron-core's own parser, configs and arguments, on a CPU.

    check_megatron.py FOLDER … [--megatron CHECKOUT]

Without a clone of NVIDIA/Megatron-LM it is the megatron-core of `make peers`: 0.16.1, the newest on PyPI in November 2026, has the
parser of patterns, but knows no Gated DeltaNet (`G`) and no layer configs. With one, arguments.sh goes through the parser of its
training script, and layers.py makes its layer configs. Its layers want a GPU and Transformer Engine: none is built. Prints a line of
JSON for each folder; exit code 1: something does not fit the stack.
"""

import argparse
import contextlib
import io
import json
import pathlib
import runpy
import shlex
import sys
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {"M": "MambaLayerConfig", "G": "GDNLayerConfig", "*": "AttentionLayerConfig", "-": "MLPLayerConfig"}


def words_of(folder):
    text = (folder / "arguments.sh").read_text()
    return shlex.split(text[text.index("MODEL=(") + len("MODEL=("):text.rindex(")")])


def symbols_of(stack):
    """The pattern that a stack file asks for."""
    symbol = {"attn": "*", "swa": "*", "gdn": "G", "m2": "M"}
    layers = stack["text"].split("|")[1:]
    whole = []
    for layer in map(str.strip, layers):
        times, _, rest = layer.partition("*") if layer[0].isdigit() else ("1", "", layer)
        parts = [part.split("(")[0] for part in rest.split("+")]
        whole += int(times) * [symbol.get(part, "-") for part in parts]
    return "".join(whole)


def parsed(pattern):
    """The layers that Megatron reads in a pattern."""
    try:
        from megatron.core.models.hybrid.hybrid_layer_allocation import parse_hybrid_pattern, validate_segment_layers
        return "".join(validate_segment_layers(parse_hybrid_pattern(pattern).main_pattern))
    except ImportError:
        from megatron.core.ssm.mamba_hybrid_layer_allocation import allocate_layers
        with contextlib.redirect_stdout(io.StringIO()):
            return "".join(allocate_layers(len(pattern), 0.0, 0.0, pattern))


def arguments(words):
    """What the parser of its training script makes of them."""
    if not hasattr(typing, "override"):  # of Python 3.12
        typing.override = lambda method: method
    from megatron.training.arguments import add_megatron_arguments
    return add_megatron_arguments(argparse.ArgumentParser(allow_abbrev=False)).parse_args(words)


def check(folder, has_checkout):
    words, stack = words_of(folder), json.loads((folder / "stack.json").read_text())
    symbols = symbols_of(stack)
    row = {"folder": str(folder), "layers": symbols, "pattern": None, "ok": True}
    if "--hybrid-layer-pattern" in words:
        row["pattern"] = words[words.index("--hybrid-layer-pattern") + 1]
        row["ok"] &= parsed(row["pattern"]) == symbols
    if not has_checkout:
        return row
    from megatron.core.transformer.transformer_config import TransformerConfig
    args = arguments(words)
    row["arguments"] = len(words)
    fields = {name for name in TransformerConfig.__dataclass_fields__ if getattr(args, name, None) is not None}
    shared = TransformerConfig(**{name: getattr(args, name) for name in (
        "hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "ffn_hidden_size", "qk_layernorm",
        "attention_output_gate", "window_size", "window_attn_skip_freq", "no_rope_freq", "normalization", "add_bias_linear",
        "mamba_state_dim", "mamba_head_dim", "mamba_num_groups", "mamba_num_heads", "linear_key_head_dim",
        "linear_value_head_dim", "linear_num_key_heads", "linear_num_value_heads", "hidden_dropout", "attention_dropout")
        if name in fields}, num_layers=len(symbols))
    made = runpy.run_path(str(folder / "layers.py"))["layer_configs"](shared)
    row["ok"] &= [type(one).__name__ for one in made] == [KINDS[symbol] for symbol in symbols]
    widths = [layer.get("ffn_width") for layer in stack["architecture"]["layers"]]
    row["ok"] &= [one.ffn_hidden_size for one in made if type(one).__name__ == KINDS["-"]] == [w for w in widths if w]
    row["ok"] &= all(one.hidden_size == stack["architecture"]["d_model"] for one in made)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--megatron", help="a clone of NVIDIA/Megatron-LM")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "operators/goldens/shim"))
    if args.megatron:
        sys.path.insert(0, args.megatron)
    rows = []
    for folder in args.folders:
        rows.append(check(folder, args.megatron is not None))
        print(json.dumps(rows[-1]), flush=True)
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
