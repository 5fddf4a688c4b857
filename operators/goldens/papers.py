"""The layers of the papers' own repositories on a CPU: log-linear attention (HanGuo97/log-linear-attention) and Selective
RoPE (timurcarstensen/selective-rope). LOG_LINEAR and SELECTIVE_ROPE in the environment say where a checkout of each is.

Their layer classes run as they are; what only exists as a GPU kernel is replaced by the same repository's dense reference,
or by what `fla_cpu` puts in the place of fla's kernels. Import after `fla_cpu`."""
import functools, importlib, os, sys, types
import torch, torch.nn.functional as F
import fla_cpu

LEVELS = 8  # enough for 128 positions


class _Anything:
    """Stands for annotations, and for names that are imported and never called here."""
    def __getitem__(self, _): return self
    def __call__(self, *a, **_): return a[0] if a and callable(a[0]) else self


def stub(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    module.__getattr__ = lambda n: _Anything() if not n.startswith("__") else None
    sys.modules[name] = module


def package(name, folder):
    """A package without its __init__, which would import every model."""
    module = types.ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


def checkout(variable):
    if variable not in os.environ:
        sys.exit(f"set {variable} to a checkout of that repository (see papers.py)")
    return os.environ[variable]


def log_linear():
    package("hattention", os.path.join(checkout("LOG_LINEAR"), "hattention"))
    for name in ("jaxtyping", "causal_conv1d", "mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "hattention.kernel",
                 "mamba_ssm.ops.triton.ssd_combined", "click", "tqdm.auto", "transformers.utils.deprecation"):
        stub(name)
    sys.modules.setdefault("fla.modules.layernorm_gated", types.ModuleType("layernorm_gated"))
    stub("hattention.modeling_hattention", MAX_NUM_LEVELS=LEVELS, LAMBDA_LEVEL_FIXED=True)
    stub("hattention.configuration_h_gated_deltanet")
    base = importlib.import_module("hattention.base")
    if hasattr(base.make_levels_matrix, "__wrapped__"):  # its cache would tabulate 16384² pairs first
        base.make_levels_matrix = functools.partial(base.make_levels_matrix.__wrapped__, cached_length=None, clamp_min=0)
    return base


def log_linear_gated_deltanet(hidden_size, **options):
    base = log_linear()
    source = open(os.path.join(checkout("LOG_LINEAR"), "hattention/modeling_h_gated_deltanet.py")).read()
    # the layer's class and what it needs; the models after it want other versions of transformers
    body = source[source.index("class HGatedDeltaNet("):source.index("class HGatedDeltaNetBlock")]
    scope = {"torch": torch, "nn": torch.nn, "F": F, "warnings": __import__("warnings"), "GatedDeltaNet": fla_cpu.GatedDeltaNet,
             "rearrange": __import__("einops").rearrange, "MAX_NUM_LEVELS": LEVELS, "LAMBDA_LEVEL_FIXED": True,
             "compute_lambda_maybe_fixed": importlib.import_module("hattention.mamba_apis").compute_lambda_maybe_fixed}

    def rule(q, k, v, g, l, beta, **_):
        q, k, b, g, l = (x.double() for x in (fla_cpu.l2(q), fla_cpu.l2(k), beta, g, l))
        o = base.hattention_materialized_dplr_v2(q, k, v.double(), b, g, l, 2, base.HType.WEAK)
        return o.to(v.dtype), None

    scope["chunk_h_gated_delta_rule"] = rule
    exec("from __future__ import annotations\n" + body, scope)
    layer = scope["HGatedDeltaNet"](hidden_size=hidden_size, **options)
    layer.training = False
    return layer


def log_linear_mamba2(hidden_size, **options):
    """fla's layer with the dense reference of the paper's repository in the place of its rule."""
    base = log_linear()

    def rule(q, k, v, g, level_scales, scale=1.0, **_):
        q, k = (x.float().repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
        a, levels = g.float().exp(), level_scales.float()
        y, _ = base.hattention_materialized(q * scale, k, v.float(), a, levels, 2, base.HType.WEAK)
        return y.to(v.dtype), None

    fla_cpu.m_llm2.chunk_log_linear_attn = rule
    fla_cpu.m_llm2.MAX_NUM_LEVELS = LEVELS
    return fla_cpu.LogLinearMamba2(hidden_size=hidden_size, use_bias=False, use_conv_bias=True, **options)


def by_rows(rotary):
    """Their projection of full rank with its weight as rows, [H · out, in]; it computes as theirs does, [H, in, out]."""
    theirs = rotary.ChunkedLinear

    class ByRows(torch.nn.Module):
        def __init__(self, inputs, outputs, heads):
            super().__init__()
            own = theirs(inputs, outputs, heads)
            self.weight, self.scalar = torch.nn.Parameter(own.weight.detach().transpose(1, 2).flatten(0, 1)), own.scalar

        def forward(self, x):
            weight = self.weight.unflatten(0, (len(self.scalar), -1)).transpose(1, 2)
            return theirs.forward(types.SimpleNamespace(weight=weight, scalar=self.scalar), x)

    return ByRows


class InDouble(torch.overrides.TorchFunctionMode):
    """float64 where float32 is asked for by name: in float32 the temperatures of random Fourier features, 1 + cos near π, have no digit."""
    def __torch_function__(self, f, types, args=(), kwargs=None):
        return f(*args, **{n: torch.float64 if x is torch.float32 else x for n, x in (kwargs or {}).items()})


def selective_rope(name, hidden_size, forms=None, **options):
    folder = os.path.join(checkout("SELECTIVE_ROPE"), "src/selective_rope")
    for part in ("", ".layers", ".modules"):
        package("selective_rope" + part, folder + part.replace(".", "/"))
    rotary = importlib.import_module("selective_rope.modules.rotary")
    rotary.l2_norm = fla_cpu.l2
    if rotary.ChunkedLinear.__name__ == "ChunkedLinear":
        rotary.ChunkedLinear, temperature = by_rows(rotary), rotary.rotary_temperature

        def temperatures(kind, *a):
            if kind != "rfa":
                return temperature(kind, *a)
            with InDouble():
                return temperature(kind, *a)

        rotary.rotary_temperature = temperatures
    position = dict(position_embedding={"type": "selective_rope"} | (forms or {}))
    if name == "Attention":
        module = importlib.import_module("selective_rope.layers.attn")

        def attend(q, k, v, causal, window_size):
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            i = torch.arange(q.shape[2])
            allowed = i[:, None] >= i
            if window_size[0] >= 0:
                allowed &= i[:, None] - i <= window_size[0]
            return F.scaled_dot_product_attention(q, k, v, allowed).transpose(1, 2)

        module.flash_attn_func = attend
        return module.Attention(hidden_size=hidden_size, **position, **options)
    module = importlib.import_module("selective_rope.layers.gated_deltanet")
    module.chunk_gated_delta_rule = module.fused_recurrent_gated_delta_rule = fla_cpu.gated_delta_rule
    layer = module.GatedDeltaNet(hidden_size=hidden_size, **position, **options)
    layer.training = False
    return layer
