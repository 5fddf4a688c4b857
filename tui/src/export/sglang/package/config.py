"""What SGLang asks of a hybrid model's config, and the registration of the model among its linear-attention models."""

from dataclasses import dataclass

from sglang.srt.configs.linear_attn_model_registry import (
    LinearAttnModelSpec,
    get_linear_attn_spec_by_arch,
    register_linear_attn_model,
)
from sglang.srt.configs.mamba_utils import BaseLinearStateParams, Mamba2StateDType

import torch

from .modeling_deltafront import DeltafrontConfig
from .remembered import remembered, width

ARCHITECTURE = "DeltafrontForCausalLM"


@dataclass(kw_only=True, frozen=True)
class RowShape:
    """A row of numbers for each request and layer; SGLang's own kernels for convolutions have nothing to do here, and their
    state has the smallest shape that its pool takes."""

    width: int
    num_k_heads_per_tp: int = 1
    disable_conv_window_dedup: bool = True
    conv_shard_groups: list | None = None

    @property
    def conv(self):
        return [(1, 1)]

    @property
    def temporal(self):
        return (1, 1, self.width)


@dataclass(kw_only=True, frozen=True)
class RowParams(BaseLinearStateParams):
    shape: RowShape


class ServedConfig(DeltafrontConfig):
    """config.json with the words that SGLang reads: one shape of attention, which the KV pool has."""

    def __init__(self, max_position_embeddings=32768, **rest):
        super().__init__(**rest)
        mixers = [layer.get("mixer", {}) for layer in self.layers]
        attention = [mixer for mixer in mixers if mixer.get("kind") == "attention"]
        of = attention[0] if attention else {"heads": 1, "kv_heads": 1, "head_width": 64}
        self.num_attention_heads, self.num_key_value_heads = of["heads"], of["kv_heads"]
        self.head_dim = of["head_width"]
        windows = {mixer.get("window") for mixer in attention} - {None}
        # as SGLang counts: the positions before the current one
        self.window_before = max(windows) - 1 if windows else None
        self.max_position_embeddings = max_position_embeddings

    @property
    def full_attention_layer_ids(self):
        """Layers with a KV cache, windows among them."""
        kinds = [layer.get("mixer", {}).get("kind") for layer in self.layers]
        return [index for index, kind in enumerate(kinds) if kind == "attention"]

    @property
    def linear_layer_ids(self):
        """Layers that remember anything else."""
        return list(remembered(self))

    @property
    def mamba2_cache_params(self):
        widest = max(map(width, remembered(self).values()))
        # positions of log-linear forms are numbers of the row, too: exact in float32 up to 2^24
        dtype = Mamba2StateDType(conv=torch.bfloat16, temporal=torch.float32)
        return RowParams(shape=RowShape(width=widest), layers=self.linear_layer_ids, dtype=dtype)


if get_linear_attn_spec_by_arch(ARCHITECTURE) is None:
    register_linear_attn_model(
        LinearAttnModelSpec(
            config_class=ServedConfig,
            backend_class_name="deltafront_sglang.states.StateBackend",
            arch_names=[ARCHITECTURE],
            # a prefix is reused from where a request ended: SGLang copies its row then
            uses_mamba_radix_cache=True,
            support_mamba_cache=True,
            support_mamba_cache_extra_buffer=False,
            config_predicate=lambda config: bool(config.linear_layer_ids),
        )
    )
