"""The layers of a stack for Megatron-core, each with sizes of its own:

    {stack}

`layer_configs(config)` gives the list that HybridModel takes as `hybrid_layer_config_list`; `config` is a TransformerConfig with
what arguments.sh says that they share.
"""

import copy

from torch.nn.functional import silu

from megatron.core.activations import squared_relu
from megatron.core.ssm.gdn_layer_config import GDNLayerConfig
from megatron.core.ssm.mamba_layer_config import MambaLayerConfig
from megatron.core.ssm.mlp_layer_config import MLPLayerConfig
from megatron.core.transformer.attention_layer_config import AttentionLayerConfig

LAYERS = [
{layers}]


def layer_configs(config):
    """A config for each layer: what all of them share, and its sizes."""
    made = []
    for kind, sizes in LAYERS:
        one = copy.copy(config)
        one.__class__ = kind
        # whether a layer has a window it says itself; which have no positions is said for all of them
        one.window_attn_skip_freq = None
        for name, value in sizes.items():
            setattr(one, name, value)
        made.append(one)
    return made
