#!/usr/bin/env python3
"""Runs an exported folder through lm-engine's own classes, on a CPU, beside deltafront's torch model.

    check_lm_engine.py FOLDER=WEIGHTS … --lm-engine CHECKOUT [--trainer target/debug/deltafront-train]

As in check.py; CHECKOUT is a clone of open-lm-engine/lm-engine, which is in no package registry. The gated delta rule, whose
kernels want a GPU, is fla's naive reference, and windows, which it has by flash-attention only, are PyTorch's attention.
model_args.yml must say what config.json says.
"""

import sys

import forward

import fla_cpu  # its import replaces the ops
import yaml


def model_of(folder, config, args):
    sys.path.insert(0, args.lm_engine)
    from lm_engine.modeling_utils.sequence_mixer_blocks.gated_deltanet import module as delta
    from lm_engine.modeling_utils.sequence_mixer_blocks.softmax_attention import module as attention
    from lm_engine.models import GPTBaseConfig, GPTBaseForCausalLM

    delta.chunk_gated_delta_rule = fla_cpu.gated_delta_rule
    sdpa = attention.F.scaled_dot_product_attention
    settings = GPTBaseConfig.from_dict(config)
    own = yaml.safe_load((folder / "model_args.yml").read_text())["model_args"]["pretrained_config"]
    assert GPTBaseConfig(**own) == settings, "model_args.yml differs from config.json"
    model = GPTBaseForCausalLM(settings)
    for block in model.transformer.h.values():
        mixer = block.sequence_mixer
        if window := getattr(mixer, "sliding_window", None):
            mixer.sliding_window = None
            mixer.forward = windowed(attention, sdpa, mixer.forward, window)
    return model


def windowed(attention, sdpa, forward_of, window):
    """A layer of attention whose products of q and k see a window."""

    def attend(query, key, value, scale, **_):
        out = forward.flash_attention(*(x.transpose(1, 2) for x in (query, key, value)), window_size=(window, 0), scale=scale)
        return out.transpose(1, 2)

    def run(*args, **kwargs):
        attention.F.scaled_dot_product_attention = attend
        try:
            return forward_of(*args, **kwargs)
        finally:
            attention.F.scaled_dot_product_attention = sdpa

    return run


if __name__ == "__main__":
    forward.main(__doc__, model_of, lambda model, tokens: model(input_ids=tokens).logits,
                 [("--lm-engine", "a clone of open-lm-engine/lm-engine")])
