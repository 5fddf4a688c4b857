#!/usr/bin/env python3
"""Runs an exported folder through flash-linear-attention's own models and layers, on a CPU, beside deltafront's torch model.

    check_fla.py FOLDER=WEIGHTS … [--trainer target/debug/deltafront-train]

As in check.py. fla needs a GPU; here its Triton ops are replaced by its own naive references, as the goldens do it
(operators/goldens/fla_cpu.py), and flash-attention by PyTorch's. Whole sequences only: its caches are not what is tested.
"""

import argparse
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "operators/goldens/shim"), str(ROOT / "operators/goldens"), str(ROOT / "tools/exports")]

import fla.layers.attn as attention  # noqa: E402
import fla.modules.mlp as mlp  # noqa: E402
import fla_cpu  # noqa: E402, F401  its import replaces the ops
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from check import LENGTH, TOLERANCE, ours  # noqa: E402
from fla.models import delta_net, gated_deltanet, gated_deltaproduct  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

MODELS = {"delta_net": delta_net, "gated_deltanet": gated_deltanet, "gated_deltaproduct": gated_deltaproduct}


def flash_attention(q, k, v, causal=True, window_size=(-1, -1), **_):
    """[B, T, H, K], as flash_attn_func has it."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    at = torch.arange(q.shape[2])
    seen = at[None] <= at[:, None]
    if window_size[0] >= 0:
        seen &= at[None] >= at[:, None] - window_size[0]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


def rotary(self, q, k, **_):
    angles = torch.arange(q.shape[1])[:, None, None] * self.base ** (-torch.arange(0, self.dim, 2).double() / self.dim)
    cos, sin = angles.cos().to(q), angles.sin().to(q)
    return [torch.cat([a * cos - b * sin, b * cos + a * sin], -1) for a, b in (x.chunk(2, -1) for x in (q, k))]


mlp.swiglu = lambda gate, up: F.silu(gate) * up
attention.flash_attn_func = flash_attention
attention.RotaryEmbedding.forward = rotary


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FOLDER=WEIGHTS")
    parser.add_argument("--trainer", default=str(ROOT / "target/debug/deltafront-train"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    fine = True
    for pair in args.pairs:
        folder, weights = map(pathlib.Path, pair.split("="))
        config = json.loads((folder / "config.json").read_text())
        module = MODELS[config["model_type"]]
        kind = config["architectures"][0].replace("ForCausalLM", "Config")
        # fused forms are Triton's
        settings = getattr(module, kind)(**{**config, "fuse_norm": False, "fuse_swiglu": False, "fuse_cross_entropy": False})
        begin = time.time()
        model = getattr(module, config["architectures"][0])(settings).eval()
        missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        if config["tie_word_embeddings"]:
            model.lm_head.weight = model.model.embeddings.weight
            missing = [name for name in missing if name != "lm_head.weight"]
        seconds = time.time() - begin
        tokens = torch.randint(0, 256, (2, LENGTH), generator=torch.Generator().manual_seed(7))
        expected, _ = ours(args.trainer, weights, tokens, 0)
        got = model(tokens, use_cache=False).logits.float()
        row = {"folder": str(folder), "model": config["model_type"], "error": (got - expected).abs().max().item(),
               "largest": expected.abs().max().item(), "load_s": round(seconds, 2), "missing": [*missing, *unexpected]}
        row["ok"] = row["error"] <= TOLERANCE and not row["missing"]
        fine &= row["ok"]
        print(json.dumps(row), flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
