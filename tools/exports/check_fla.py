#!/usr/bin/env python3
"""Runs an exported folder through flash-linear-attention's own models and layers, on a CPU, beside deltafront's torch model.

    check_fla.py FOLDER=WEIGHTS … [--trainer target/debug/deltafront-train]

As in check.py. fla needs a GPU; here its Triton ops are replaced by its own naive references, as the goldens do it
(operators/goldens/fla_cpu.py), and flash-attention by PyTorch's. Whole sequences only: its caches are not what is tested.
"""

import forward

import fla.layers.attn as attention
import fla.modules.mlp as mlp
import fla_cpu  # noqa: F401  its import replaces the ops
import torch
import torch.nn.functional as F
from fla.models import delta_net, gated_deltanet, gated_deltaproduct

MODELS = {"delta_net": delta_net, "gated_deltanet": gated_deltanet, "gated_deltaproduct": gated_deltaproduct}


def rotary(self, q, k, **_):
    angles = torch.arange(q.shape[1])[:, None, None] * self.base ** (-torch.arange(0, self.dim, 2).double() / self.dim)
    cos, sin = angles.cos().to(q), angles.sin().to(q)
    return [torch.cat([a * cos - b * sin, b * cos + a * sin], -1) for a, b in (x.chunk(2, -1) for x in (q, k))]


mlp.swiglu = lambda gate, up: F.silu(gate) * up
attention.flash_attn_func = forward.flash_attention
attention.RotaryEmbedding.forward = rotary


def model_of(_folder, config, _args):
    module, name = MODELS[config["model_type"]], config["architectures"][0]
    # fused forms are Triton's
    plain = {**config, "fuse_norm": False, "fuse_swiglu": False, "fuse_cross_entropy": False}
    model = getattr(module, name)(getattr(module, name.replace("ForCausalLM", "Config"))(**plain))
    if config["tie_word_embeddings"]:
        model.lm_head.weight = model.model.embeddings.weight
    return model


if __name__ == "__main__":
    forward.main(__doc__, model_of, lambda model, tokens: model(tokens, use_cache=False).logits)
