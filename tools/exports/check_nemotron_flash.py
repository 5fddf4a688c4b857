#!/usr/bin/env python3
"""Runs an exported folder through NVIDIA's modelling file of Nemotron-Flash, on a CPU, beside deltafront's torch model.

    check_nemotron_flash.py FOLDER=WEIGHTS … --code FOLDER [--trainer target/debug/deltafront-train]

As in check.py; the code is the folder nemo_automodel/components/models/nemotron_flash of NVIDIA-NeMo/Automodel, as it was added
there (commit 4d07950). Its kernels want a GPU: the delta rule is fla's naive reference, Mamba2's scan, its convolution and
gated norm, and flash-attention are plain PyTorch. Whole sequences only.
"""

import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
import types
from unittest import mock

import forward

import fla_cpu
import torch
import torch.nn.functional as F
import transformers.utils

# What the modelling file imports of packages that need a GPU to be built, or of its own trainer.
ABSENT = ("flash_attn", "mamba_ssm", "causal_conv1d", "nemo_automodel")


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of those packages, with anything in them."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: mock.MagicMock(name=name)
        return module

    def exec_module(self, module):
        pass


def scan(x, dt, A, B, C, chunk_size, D, dt_bias, **_):
    """Mamba2's recurrence (arXiv 2405.21060): x [B, T, H, P], dt [B, T, H], A, D [H], B, C [B, T, G, N]."""
    dt = F.softplus(dt + dt_bias)
    B, C = (y.repeat_interleave(x.shape[2] // y.shape[2], 2) for y in (B, C))
    state, out = x.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[-1]), []
    for t in range(x.shape[1]):
        write = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        state = (dt[:, t] * A).exp()[..., None, None] * state + write
        out.append((state * C[:, t, :, None]).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(out, 1)


class GatedNorm(torch.nn.Module):
    """The norm of what was gated."""

    def __init__(self, width, eps, **_):
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(torch.ones(width)), eps

    def forward(self, x, gate):
        x = x * F.silu(gate)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def conv(x, weight, bias, activation):
    return F.silu(F.conv1d(x, weight[:, None], bias, padding=3, groups=x.shape[1])[..., : x.shape[2]])


def load(code):
    code = pathlib.Path(code).resolve()
    sys.meta_path.insert(0, Absent())
    package = types.ModuleType("nemotron_flash")
    package.__path__ = [str(code)]
    sys.modules["nemotron_flash"] = package
    # gone from transformers since
    transformers.utils.replace_return_docstrings = lambda **_: lambda method: method
    for name in ("is_flash_attn_greater_or_equal_2_10",):
        setattr(transformers.utils, name, lambda: True)
    package.fused = sys.modules["nemotron_flash.fused_mha_with_cache"] = mock.MagicMock()
    delta = importlib.import_module("nemotron_flash.delta_net")
    delta.chunk_delta_rule = delta.fused_recurrent_delta_rule = fla_cpu.delta_rule
    mamba = importlib.import_module("nemotron_flash.mamba2")
    mamba.mamba_chunk_scan_combined, mamba.RMSNormGated, mamba.causal_conv1d_fn = scan, GatedNorm, conv
    modelling = importlib.import_module("nemotron_flash.modeling_nemotron_flash")
    modelling.flash_attn_func = forward.flash_attention
    on_gpu = modelling.LlamaRotaryEmbedding.__init__
    modelling.LlamaRotaryEmbedding.__init__ = lambda self, config, dim, base, device: on_gpu(self, config, dim, base)
    return modelling


def model_of(_folder, config, args):
    modelling = sys.modules.get("nemotron_flash.modeling_nemotron_flash") or load(args.code)
    # its words for layers are older than transformers' list of them
    for one in modelling.NemotronFlashConfig.__mro__:
        vars(one).get("__class_validators__", []).clear()
    settings = modelling.NemotronFlashConfig(**{**config, "use_cache": False})
    with mock.patch.object(modelling.NemotronFlashPreTrainedModel, "post_init", lambda self: None):
        settings.tie_word_embeddings = False  # tied below
        model = modelling.NemotronFlashForCausalLM(settings)
    if config["tie_word_embeddings"]:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


if __name__ == "__main__":
    forward.main(__doc__, model_of, lambda model, tokens: model(tokens, use_cache=False, return_dict=True).logits,
                 [("--code", "the folder of NVIDIA's modelling file")])
