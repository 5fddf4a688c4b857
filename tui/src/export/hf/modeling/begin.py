"""A stack that deltafront chose, in plain PyTorch, for `transformers`: one file, nothing of it is generated at run time.

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

Every mixer has a chunked form, parallel over time, for training and prompts, and a recurrent one that takes one token and
a state. Recurrences, norms and decays are computed in float32 or wider whatever the type of the weights. Where
flash-linear-attention or flash-attention are installed and the model is on a GPU, their kernels take the place of the
forms here.

Shapes: B sequences, T positions, H heads, K width of a key, V width of a value, d width of the model.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

# Positions of a chunk.
CHUNK = 64
# Added to the mean square of an RMSNorm, and to the sum of squares of an L2 norm.
RMS_EPS, L2_EPS = 1e-5, 1e-6
# What training adds to the loss, times how unevenly the experts of mixtures are used.
BALANCE = 0.01
# Taps of the short convolutions before a recurrence.
CONV_WIDTH = 4

PARTS = {}


def part(name):
    """Makes a part known by a name: a file holds only the parts that its stack uses."""

    def known(thing):
        PARTS[name] = thing
        return thing

    return known


# Whether kernels of flash-linear-attention are used, as the config of the last model that was made says.
KERNELS = {"fla": True}


def fla(operation, *decayed):
    """A kernel of flash-linear-attention, `module.function`, or None where that is not installed or not wanted, or would
    refuse the gradients of a rule with decays, whose inputs are given as `decayed`."""
    if not KERNELS["fla"]:
        return None
    module, function = operation.rsplit(".", 1)
    try:
        kernel = getattr(__import__(f"fla.ops.{module}", fromlist=[function]), function)
    except (ImportError, AttributeError):
        return None
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in decayed)
    return None if learns and gradients_refused() else kernel


def gradients_refused():
    """Whether flash-linear-attention refuses the gradients of rules with decays, which Triton 3.4 to 3.7.0 gets wrong on
    Hopper GPUs (its issue 640)."""
    try:
        import triton
        from packaging.version import parse
    except ImportError:
        return False
    old = parse("3.4.0") <= parse(triton.__version__) < parse("3.7.1")
    return old and torch.cuda.get_device_capability()[0] == 9


def wide(x):
    """x in float32, or in float64 if it is."""
    return x if x.dtype == torch.float64 else x.float()


class DeltafrontConfig(PretrainedConfig):
    """What config.json says: `layers` is the stack, a mixer with its shape and the width of an FFN in each."""

    model_type = "deltafront"

    def __init__(self, vocab_size=256, hidden_size=64, layers=None, meta_tokens=0, logits_divided_by_head_norms=False,
                 use_cache=True, tie_word_embeddings=True, fla_kernels=True, **rest):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.layers = layers or [{"ffn_width": 4 * hidden_size}]
        self.meta_tokens = meta_tokens
        self.logits_divided_by_head_norms = logits_divided_by_head_norms
        self.use_cache = use_cache
        self.fla_kernels = fla_kernels
        self.num_hidden_layers = len(self.layers)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **rest)

    @property
    def branches(self):
        """Terms that the residual stream sums."""
        return sum(("mixer" in layer) + ("ffn_width" in layer) for layer in self.layers)


class Memory:
    """What the model remembers of the tokens so far: a table of tensors for each layer, whose first dimension is B."""

    is_compileable = False

    def __init__(self, layers):
        self.layers = [{} for _ in range(layers)]
        # Tokens seen, padding included; and the padding before the first of them, [B], None without.
        self.tokens, self.padding = 0, None

    def get_seq_length(self, layer_idx=0):
        return self.tokens

    def get_max_cache_shape(self, layer_idx=0):
        return -1

    def change(self, f):
        self.layers = [{name: f(x) for name, x in layer.items()} for layer in self.layers]
        self.padding = None if self.padding is None else f(self.padding)

    def reorder_cache(self, beam_idx):
        self.change(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats):
        self.change(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices):
        self.change(lambda x: x[indices.to(x.device)])

    def crop(self, *_):
        raise NotImplementedError("a recurrent state cannot go back: use a decoding method that only goes forward")


@dataclass
class Place:
    """Where the T positions of an input stand in their sequences."""

    # Position of the first one, padding included.
    first: int
    # Padding before each sequence, [B]; None: there is none.
    padding: torch.Tensor | None
    # Which of the T positions are no padding, [B, T]; None: all.
    real: torch.Tensor | None
    # In training, how unevenly the experts of each mixture are used; None otherwise.
    balance: list | None = None

    def positions(self, t, device):
        """Positions from the first that is no padding, [B or 1, T], below 0 in the padding."""
        positions = torch.arange(self.first, self.first + t, device=device)[None]
        return positions if self.padding is None else positions - self.padding[:, None]


class Matrix(nn.Linear):
    """A map without bias. `role` says for initial values and training whether it reads the residual stream, writes to it,
    or lies between two others (`inner`)."""

    def __init__(self, inputs, outputs, role="reader"):
        super().__init__(inputs, outputs, bias=False)
        self.role = role


class RMSNorm(nn.Module):
    """x / sqrt(mean x² + 1e-5) · weight, over the last dimension."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = wide(x)
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + RMS_EPS) * self.weight).to(x.dtype)


def l2_norm(x):
    """x / sqrt(sum x² + 1e-6), over the last dimension, in float32."""
    x = wide(x)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + L2_EPS)


def frequencies(half, theta, x):
    """θ^(−2i/K) for i below K/2, in float64."""
    return torch.exp(torch.arange(half, dtype=torch.float64, device=x.device) * (-math.log(theta) / half))


def turn(x, angles):
    """Turns channels i and i + K/2 of x [B, T, H, K] by `angles` [B, T, H or 1, K/2]."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) · up x), or squared ReLU ("relu2"): down(max(up x, 0)²)."""

    def __init__(self, d, width, kind="swiglu"):
        super().__init__()
        self.gate = Matrix(d, width) if kind == "swiglu" else None
        self.up = Matrix(d, width)
        self.down = Matrix(width, d, "writer")

    def forward(self, x, _=None):
        if self.gate is None:
            return self.down(F.relu(self.up(x)).square())
        return self.down(F.silu(self.gate(x)) * self.up(x))
