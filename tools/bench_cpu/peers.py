"""The peers' side of bench.py: pure-torch layers of transformers, fla and torch itself, one request a line.

Reads `NAME d tokens batch fp32|bf16 forward|training`, runs forward, and in training backward, once, answers with the
seconds it took.
"""

import importlib.util
import os
import pathlib
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
from torch import nn

HEAD = 64  # width of a head, everywhere


class Attention(nn.Module):
    """Projections, rotary positions on halves, SDPA; a window is a mask."""

    def __init__(self, d, window=None):
        super().__init__()
        self.window = window
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.tables = {}

    def constants(self, tokens, dtype):
        if tokens not in self.tables:
            position = torch.arange(tokens, dtype=torch.float64)
            angle = position[:, None] * 1e4 ** (-torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD)
            distance = position[:, None] - position
            mask = (distance >= 0) & (distance < self.window) if self.window else None
            self.tables[tokens] = (angle.cos().to(dtype), angle.sin().to(dtype), mask)
        return self.tables[tokens]

    def forward(self, x):
        cos, sin, mask = self.constants(x.shape[1], x.dtype)
        q, k, v = (part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))

        def turned(x):
            a, b = x.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        o = F.scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=mask, is_causal=mask is None)
        return self.out(o.transpose(1, 2).flatten(2))


class DeltaNet(nn.Module):
    """The parameterisation of fla's layer around its naive chunked rule."""

    def __init__(self, d):
        super().__init__()
        # the naive files need nothing of fla's package, whose import wants a GPU compiler
        package = pathlib.Path(importlib.util.find_spec("fla").submodule_search_locations[0])
        spec = importlib.util.spec_from_file_location("naive", package / "ops/delta_rule/naive.py")
        naive = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(naive)
        self.rule = naive.delta_rule_chunkwise
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.beta = nn.Linear(d, d // HEAD, bias=False)
        self.conv = nn.Conv1d(3 * d, 3 * d, 4, padding=3, groups=3 * d, bias=False)
        self.norm = nn.RMSNorm(HEAD, eps=1e-5)
        self.out = nn.Linear(d, d, bias=False)

    def forward(self, x):
        qkv = F.silu(self.conv(self.qkv(x).transpose(1, 2))[..., : x.shape[1]])
        q, k, v = (part.unflatten(1, (-1, HEAD)).transpose(2, 3).contiguous() for part in qkv.chunk(3, 1))
        q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
        o, _ = self.rule(q, k, v, self.beta(x).sigmoid().transpose(1, 2).contiguous())
        return self.out(self.norm(o.transpose(1, 2)).flatten(2))


def gated_delta_net(d):
    from transformers import OlmoHybridConfig
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet

    heads = d * 3 // 4 // HEAD
    config = OlmoHybridConfig(
        hidden_size=d, num_attention_heads=d // HEAD, num_hidden_layers=2, vocab_size=64,
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=heads,
        linear_num_value_heads=heads, linear_key_head_dim=HEAD, linear_value_head_dim=2 * HEAD)
    layer = OlmoHybridGatedDeltaNet(config, 0)
    layer.A_log.data.clamp_(min=-4)  # ln 0 is among its initial values
    return layer


def kimi_delta_attention(d):
    from transformers import KimiLinearConfig
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

    heads = d // HEAD
    config = KimiLinearConfig(
        hidden_size=d, num_attention_heads=heads, num_key_value_heads=heads, num_hidden_layers=2, vocab_size=64,
        layer_types=["linear_attention", "full_attention"], linear_num_heads=heads, linear_head_dim=HEAD,
        linear_conv_kernel_dim=4)
    return KimiLinearDeltaAttention(config, 0)


def mamba2(d, chunk):
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=d, num_heads=2 * d // HEAD, head_dim=HEAD, state_size=128, n_groups=1, expand=2,
        chunk_size=chunk, num_hidden_layers=1, vocab_size=64)
    return Mamba2Mixer(config, 0)


LAYERS = {
    "transformers-gated-deltanet": gated_delta_net,
    "transformers-kda": kimi_delta_attention,
    "transformers-mamba2-chunk-64": lambda d: mamba2(d, 64),
    "transformers-mamba2-chunk-256": lambda d: mamba2(d, 256),
    "fla-naive-deltanet": DeltaNet,
    "sdpa-full": Attention,
    "sdpa-mask-256": lambda d: Attention(d, 256),
}


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    torch.manual_seed(0)
    built = {}
    for line in sys.stdin:
        name, d, tokens, batch, precision, work = line.split()
        d, tokens, batch = int(d), int(tokens), int(batch)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        if line not in built:
            layer = LAYERS[name](d).to(dtype).train()
            x = torch.randn(batch, tokens, d, dtype=dtype, requires_grad=True)
            built[line] = (layer, x, torch.randn(batch, tokens, d, dtype=dtype))
        layer, x, d_y = built[line]
        start = time.perf_counter()
        with torch.set_grad_enabled(work == "training"):
            y = layer(x)
        y = y[0] if isinstance(y, tuple) else y
        if work == "training":
            torch.autograd.grad(y, [x, *layer.parameters()], d_y.to(y.dtype))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
