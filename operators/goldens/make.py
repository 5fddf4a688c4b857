"""Golden numbers: whole mixer layers of independent libraries on a CPU, forward and backward.

    python operators/goldens/make.py [name ...]

needs torch 2.11, transformers 5.23 (of LFM2, Kimi Linear, mixtures of experts and newer attention 5.24), fla-core 0.6 and safetensors, and for the cases that begin with `paper_` checkouts of
the papers' repositories (see `papers.py`). Each case gives one file per length, holding the
library's own weights (`w.NAME`), the input x, the direction dy, the output y, the state after the last position
(`state`, [B, H, K, V], of a convolution its last inputs, [B, k - 1, C]), and the gradients of sum(y * dy) (`dx`, `g.NAME`). The library computes in float64, see
`Exactly`, and the numbers are stored in float32: an error that the test `operators/tests/it/goldens.rs` finds is ours.
The measure of ours in bfloat16 is the library's layer in bfloat16 throughout: `b16.y`, `b16.dx`, `b16.g.NAME`, and under
`b16.typical.NAME` its relative error over further inputs, because on a single one it may be small by chance.
The names are matched by `search::foreign`.

fla's kernels need a GPU; `shim` stands in for Triton at import, and the ops that its layers call are replaced by fla's
own naive references.
"""
import sys, pathlib
HERE = pathlib.Path(__file__).parent
import torch, torch.nn.functional as F
from safetensors.torch import save_file
import transformers
transformers.logging.set_verbosity_error()
from transformers import (DynamicCache, FalconH1Config, GraniteMoeHybridConfig, KimiLinearConfig, Lfm2Config, LlamaConfig, NemotronHConfig, Qwen3Config,
                          Qwen3MoeConfig, Qwen3_5TextConfig, OlmoHybridConfig, Mamba2Config)
from transformers.models.falcon_h1 import modeling_falcon_h1 as falcon
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as granite
from transformers.models.kimi_linear import modeling_kimi_linear as kimi
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHAttention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen3_moe
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen3_5
from transformers.models.olmo_hybrid import modeling_olmo_hybrid as olmo
from transformers.models.mamba2 import modeling_mamba2 as hf_mamba2

from torch.overrides import TorchFunctionMode

torch.set_num_threads(1)
D, BATCH, LENGTHS = 16, 2, (37, 100)
DRAWS = 8  # further inputs over which the error of the plain bfloat16 form is averaged
BALANCE = []  # how unevenly the layer that ran last used its experts
STATE = []  # the final state of the layer that ran last, [B, H, K, V]


class Exactly(TorchFunctionMode):
    """float64 wherever a library asks for float32."""
    def __enter__(self):
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *a):
        torch.set_default_dtype(torch.float32)
        return super().__exit__(*a)

    def __torch_function__(self, f, types, args=(), kwargs=None):
        wide = lambda x: torch.float64 if x is torch.float32 else x
        f = torch.Tensor.double if f is torch.Tensor.float else f
        return f(*map(wide, args), **{n: wide(x) for n, x in (kwargs or {}).items()})


def recording(op, transpose=False):
    """`op` of transformers, which leaves its final state in STATE."""
    def run(*a, **k):
        k = {n: x for n, x in k.items() if n not in ("output_final_state", "return_final_states")}
        k["return_final_states" if transpose else "output_final_state"] = True
        y, s = op(*a, **k)
        STATE[:] = [s.transpose(-1, -2) if transpose else s]
        return (y, s) if not transpose else y
    return run


kimi.chunk_kimi_delta_attention = recording(kimi.chunk_kimi_delta_attention)
olmo.torch_chunk_gated_delta_rule = recording(olmo.torch_chunk_gated_delta_rule)
hf_mamba2.mamba2_chunk_scan = recording(hf_mamba2.mamba2_chunk_scan, transpose=True)


SHAPE = dict(hidden_size=D, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=8, attn_implementation="eager")


def past(length):
    return torch.zeros(length, length).masked_fill(torch.ones(length, length).triu(1) > 0, float("-inf"))[None, None]


def gated_attention():
    """Qwen3.5's, with q and gate in matrices of their own, and norms by the weights that they multiply by."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5, "mrope_section": [2, 0, 0], "mrope_interleaved": True}
    config = Qwen3_5TextConfig(**SHAPE, num_hidden_layers=1, layer_types=["full_attention"], rms_norm_eps=1e-5, rope_parameters=rope)
    layer = qwen3_5.Qwen3_5Attention(config, 0)
    outer = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(D, 32, bias=False), "g_proj": torch.nn.Linear(D, 32, bias=False)}
                                | {n: getattr(layer, n) for n in ("k_proj", "v_proj", "o_proj")}
                                | {n: torch.nn.Module() for n in ("q_norm", "k_norm")})
    del layer.q_proj
    heads = lambda x: x.unflatten(-1, (4, 8))
    layer.q_proj = lambda x: torch.cat([heads(outer["q_proj"](x)), heads(outer["g_proj"](x))], -1).flatten(-2)
    for name in ("q_norm", "k_norm"):
        outer[name].weight = torch.nn.Parameter(torch.ones(8))
        del getattr(layer, name)._parameters["weight"]
    def forward(x):
        for name in ("q_norm", "k_norm"):
            getattr(layer, name).weight = outer[name].weight - 1
        rotary = qwen3_5.Qwen3_5TextRotaryEmbedding(config)(x, torch.arange(x.shape[1])[None])
        return layer(x, position_embeddings=rotary, attention_mask=past(x.shape[1]).to(x.dtype))[0]
    return outer, forward


def attention_without_positions():
    layer = NemotronHAttention(NemotronHConfig(**SHAPE), 0)
    return layer, lambda x: layer(x, attention_mask=past(x.shape[1]).to(x.dtype))[0]


def attention_normed_whole(positions):
    config = OlmoHybridConfig(**SHAPE, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], rms_norm_eps=1e-5,
                              rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    layer = olmo.OlmoHybridAttention(config, 1)
    def forward(x):
        rotary = olmo.OlmoHybridRotaryEmbedding(config)(x, torch.arange(x.shape[1])[None]) if positions else None
        return layer(x, position_embeddings=rotary, attention_mask=past(x.shape[1]).to(x.dtype))[0]
    return layer, forward


def attention(kind, window=None):
    shape = SHAPE | dict(num_hidden_layers=1, rms_norm_eps=1e-5)
    config = (LlamaConfig if kind is LlamaAttention else Qwen3Config)(**shape, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    layer = kind(config, 0)
    def forward(x):
        rotary = (LlamaRotaryEmbedding if kind is LlamaAttention else Qwen3RotaryEmbedding)(config)
        i = torch.arange(x.shape[1])
        allowed = (i[:, None] >= i) & (i[:, None] - i < (window or x.shape[1]))
        mask = torch.zeros(x.shape[1], x.shape[1]).masked_fill(~allowed, float("-inf"))[None, None]
        return layer(x, position_embeddings=rotary(x, i[None]), attention_mask=mask)[0]
    return layer, forward


def gated_deltanet(**options):
    config = OlmoHybridConfig(hidden_size=D, num_attention_heads=2, num_hidden_layers=2, vocab_size=8,
                              layer_types=["linear_attention", "full_attention"], linear_key_head_dim=8,
                              linear_value_head_dim=12, **(dict(linear_num_key_heads=3, linear_num_value_heads=3) | options))
    layer = olmo.OlmoHybridGatedDeltaNet(config, 0)
    return layer, layer


def mamba2():
    config = Mamba2Config(hidden_size=D, num_heads=4, head_dim=8, state_size=12, n_groups=1, expand=2, chunk_size=16,
                          num_hidden_layers=1, vocab_size=8)
    layer = hf_mamba2.Mamba2Mixer(config, 0).eval()
    return layer, layer


def falcon_h1_parallel():
    """The mixers of Falcon-H1's layer, its multipliers 1: what it adds to the stream before its FFN."""
    config = FalconH1Config(hidden_size=D, num_attention_heads=4, num_key_value_heads=2, head_dim=4, num_hidden_layers=1, vocab_size=8,
                            rope_parameters={"rope_type": "default", "rope_theta": 1e4}, rms_norm_eps=1e-5, mamba_d_ssm=32, mamba_n_heads=4,
                            mamba_d_head=8, mamba_d_state=12, mamba_n_groups=1, mamba_chunk_size=16, mamba_rms_norm=True,
                            mamba_norm_before_gate=False, attn_implementation="eager")
    outer = torch.nn.ModuleDict({"attention": falcon.FalconH1Attention(config, 0), "beside": falcon.FalconH1Mixer(config, 0).eval()})
    outer["beside"].register_buffer("mup_vector", falcon.compute_mup_vector(config))
    def forward(x):
        rotary = falcon.FalconH1RotaryEmbedding(config)(x, torch.arange(x.shape[1])[None])
        attended, _ = outer["attention"](x, position_embeddings=rotary, attention_mask=past(x.shape[1]).to(x.dtype))
        return outer["beside"](x) + attended
    return outer, forward


def kimi_delta_attention():
    config = KimiLinearConfig(hidden_size=D, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"],
                              num_attention_heads=2, num_key_value_heads=2, vocab_size=8, rms_norm_eps=1e-5,
                              linear_num_heads=2, linear_head_dim=8, linear_conv_kernel_dim=4)
    layer = kimi.KimiLinearDeltaAttention(config, 0)
    return layer, layer


def short_conv(taps):
    config = Lfm2Config(hidden_size=D, num_attention_heads=2, num_hidden_layers=1, layer_types=["conv"], vocab_size=8,
                        conv_L_cache=taps, conv_bias=False)
    layer = Lfm2ShortConv(config, 0)
    def forward(x):
        with torch.no_grad():
            cache = DynamicCache(config=config)
            layer(x, cache=cache)
            STATE[:] = [cache.get_conv_state(0, state_idx=0)[..., 1 - taps:].transpose(1, 2)]
        return layer(x)
    return layer, forward


class Mixture(torch.nn.Module):
    """A mixture of experts under our names: router, gate, up, down [E, out, in], shared ones. `layer` is theirs."""
    def __init__(self, layer, experts, width, shared=None):
        super().__init__()
        matrix = lambda *shape: torch.nn.ParameterDict({"weight": torch.nn.Parameter(torch.empty(*shape))})
        self.router, self.down = matrix(experts, D), matrix(experts, D, width)
        self.gate, self.up = matrix(experts, width, D), matrix(experts, width, D)
        if shared:
            self.shared = torch.nn.ModuleDict({"gate": matrix(shared, D), "up": matrix(shared, D), "down": matrix(D, shared)})
        self.layer = [layer]  # not a module: its parameters are ours
        for module in layer.modules():
            for name in list(module._parameters):
                del module._parameters[name]

    def put(self, router):
        layer = self.layer[0]
        getattr(layer, router).weight = self.router["weight"]
        layer.experts.gate_up_proj = torch.cat([self.gate["weight"], self.up["weight"]], 1)
        layer.experts.down_proj = self.down["weight"]
        return layer


def granite_mixture():
    config = GraniteMoeHybridConfig(hidden_size=D, num_local_experts=5, num_experts_per_tok=2, intermediate_size=6,
                                    shared_intermediate_size=12, layer_types=["full_attention"], num_hidden_layers=1, mamba_n_heads=4, mamba_d_head=8)
    config._experts_implementation = "eager"
    mlp = granite.GraniteMoeHybridMLP(config)
    outer = Mixture(granite.GraniteMoeHybridMoE(config), 5, 6, 12)
    for linear in (mlp.input_linear, mlp.output_linear):
        del linear._parameters["weight"]
    def forward(x):
        shared = {n: outer.shared[n]["weight"] for n in ("gate", "up", "down")}
        mlp.input_linear.weight, mlp.output_linear.weight = torch.cat([shared["gate"], shared["up"]]), shared["down"]
        return outer.put("router")(x) + mlp(x)
    return outer, forward


def qwen3_mixture(per_token):
    """With its weights brought to a sum of one, or of one expert as they are."""
    config = Qwen3MoeConfig(hidden_size=D, num_experts=7, num_experts_per_tok=per_token, moe_intermediate_size=5,
                            norm_topk_prob=per_token > 1, num_hidden_layers=1)
    config._experts_implementation = "eager"
    outer = Mixture(qwen3_moe.Qwen3MoeSparseMoeBlock(config), 7, 5)
    def forward(x):
        layer = outer.put("gate")
        logits = x.reshape(-1, D) @ outer.router["weight"].T
        # theirs sums over the choices of a token
        BALANCE[:] = [qwen3_moe.load_balancing_loss_func((logits,), 7, per_token) / per_token]
        return layer(x)
    return outer, forward


def fla(name, **options):
    """A layer of fla; its module is imported after transformers has bound its torch fallbacks."""
    if "fla_cpu" not in sys.modules:
        sys.path[:0] = [str(HERE), str(HERE / "shim")]
        for module in [m for m in sys.modules if m.split(".")[0] in ("triton", "fla")]:
            del sys.modules[module]
    import fla_cpu
    fla_cpu.STATE = STATE
    layer = getattr(fla_cpu, name)(hidden_size=D, **options)
    return layer, lambda x: layer(x)[0]


def paper(name, *a, **options):
    """A layer of a paper's own repository."""
    fla("DeltaNet", num_heads=2)  # for its modules
    import papers
    layer = getattr(papers, name)(*a, hidden_size=D, **options)
    return layer, lambda x: layer(x)[0]


CASES = {
    "llama_attention": lambda: attention(LlamaAttention),
    "qwen3_attention": lambda: attention(Qwen3Attention),
    "llama_attention_window_9": lambda: attention(LlamaAttention, 9),
    "qwen3_5_attention": gated_attention,
    "nemotron_h_attention": attention_without_positions,
    "olmo_hybrid_attention": lambda: attention_normed_whole(True),
    "olmo_hybrid_attention_without_positions": lambda: attention_normed_whole(False),
    "olmo_gated_deltanet": lambda: gated_deltanet(linear_allow_neg_eigval=False),
    "mamba2": mamba2,
    "falcon_h1_parallel": falcon_h1_parallel,
    "kimi_delta_attention": kimi_delta_attention,
    "lfm2_short_conv": lambda: short_conv(3),
    "lfm2_short_conv_of_6": lambda: short_conv(6),
    "granite_mixture": granite_mixture,
    "qwen3_mixture": lambda: qwen3_mixture(3),
    "qwen3_mixture_of_1": lambda: qwen3_mixture(1),
    "fla_deltanet": lambda: fla("DeltaNet", num_heads=2, expand_k=1, expand_v=1.5),
    "fla_gated_deltanet": lambda: fla("GatedDeltaNet", num_heads=2, head_dim=8, expand_v=2),
    "olmo_gated_deltanet_negative_grouped": lambda: gated_deltanet(
        linear_allow_neg_eigval=True, linear_num_key_heads=2, linear_num_value_heads=4),
    "fla_deltanet_gated_negative": lambda: fla("DeltaNet", num_heads=2, use_gate=True, allow_neg_eigval=True),
    "fla_gated_deltanet_plain": lambda: fla("GatedDeltaNet", num_heads=2, num_v_heads=4, head_dim=8, expand_v=1,
                                            use_gate=False, use_short_conv=False),
    "fla_deltaproduct_2": lambda: fla("GatedDeltaProduct", num_heads=2, head_dim=8, expand_v=1, num_householder=2,
                                      use_forget_gate=False),
    "fla_gated_deltaproduct_3": lambda: fla("GatedDeltaProduct", num_heads=2, num_v_heads=4, head_dim=8, expand_v=1,
                                            num_householder=3, allow_neg_eigval=False),
    "fla_log_linear_mamba2": lambda: fla("LogLinearMamba2", num_heads=4, head_dim=8, state_size=12, expand=2,
                                         use_bias=False, use_conv_bias=True),
    "paper_log_linear_mamba2": lambda: paper("log_linear_mamba2", num_heads=4, head_dim=8, state_size=12, expand=2),
    "paper_log_linear_gated_deltanet": lambda: paper("log_linear_gated_deltanet", num_heads=2, head_dim=8, expand_v=1.5),
    "paper_selective_rope_attention": lambda: paper("selective_rope", "Attention", num_heads=2, qk_norm=True),
    "paper_selective_rope_window_9": lambda: paper("selective_rope", "Attention", num_heads=2, window_size=9),
    "paper_selective_rope_gated_deltanet": lambda: paper("selective_rope", "GatedDeltaNet", num_heads=2, num_v_heads=4,
                                                         head_dim=8, expand_v=1.5, allow_neg_eigval=True),
    "paper_selective_rope_whole_attention": lambda: paper(
        "selective_rope", "Attention", num_heads=2,
        forms=dict(use_gate=True, use_bias=True, phi_parametrization="full-rank", temp_grad=True)),
    "paper_selective_rope_whole_gated_deltanet": lambda: paper(
        "selective_rope", "GatedDeltaNet", num_heads=2, num_v_heads=4, head_dim=8, expand_v=1.5,
        forms=dict(use_gate=True, phi_parametrization="full-rank", temp_type="rfa", temp_theta=0.9999, temp_max=0.25)),
    "paper_selective_rope_window_9_bias": lambda: paper(
        "selective_rope", "Attention", num_heads=2, window_size=9, forms=dict(use_bias=True, temp_theta=1.0)),
}


def gradients(layer, forward, x, dy):
    """The output, and the gradients of sum(y * dy)."""
    layer.zero_grad()
    x = x.requires_grad_()
    y = forward(x)
    (y * dy).sum().backward(retain_graph=bool(BALANCE))
    of_parameters = {f"g.{n}": p.grad for n, p in layer.named_parameters() if p.requires_grad}
    return {n: t.detach().clone() for n, t in ({"y": y, "dx": x.grad} | of_parameters).items()}


def typical(plain, exact):
    """The relative error of `plain`, root mean square over the draws."""
    errors = [((p.double() - e).norm() / e.norm()) ** 2 for p, e in zip(plain, exact)]
    return torch.stack(errors).mean().sqrt()


def make(name, length):
    torch.manual_seed(length)
    STATE.clear(), BALANCE.clear()
    layer, forward = CASES[name]()
    with torch.no_grad():
        for n, p in layer.named_parameters():  # constants stay; the others of a size at which nothing is negligible
            if p.requires_grad:
                p.copy_(torch.randn_like(p) * 0.3 + (1 if "norm" in n or n in ("D", "L") else 0) if p.dim() == 1 else torch.randn_like(p) * 0.3)
    (x, dy), *others = [[torch.randn(BATCH, length, D) for _ in range(2)] for _ in range(1 + DRAWS)]
    out = {"x": x, "dy": dy} | {f"w.{n}": p.clone() for n, p in layer.named_parameters() if p.requires_grad}
    layer.double()
    with Exactly():
        exact = gradients(layer, forward, x.double(), dy.double())
        if STATE:
            out["state"] = STATE[0]
        if BALANCE:
            out["balance"] = BALANCE[0].detach()
            router = layer.router["weight"]
            out["balance.g.router.weight"], = torch.autograd.grad(BALANCE[0], router)
        exact_others = [gradients(layer, forward, x.double(), dy.double()) for x, dy in others]
    layer.bfloat16()
    plain = gradients(layer, forward, x.bfloat16(), dy.bfloat16())
    plain_others = [gradients(layer, forward, x.bfloat16(), dy.bfloat16()) for x, dy in others]
    out |= exact
    out |= {f"b16.typical.{n}": typical([p[n] for p in plain_others], [e[n] for e in exact_others]) for n in exact}
    out = {n: t.detach().float() for n, t in out.items()} | {f"b16.{n}": t.bfloat16() for n, t in plain.items()}
    path = HERE / f"{name}_{length}.safetensors"
    save_file({n: t.contiguous().clone() for n, t in out.items()}, path)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(out)} tensors")


def log_linear(length, heads=2, k=8, v=12, levels=8):
    """The log-linear rule alone, without a layer: its inputs are called w.NAME, their gradients g.NAME."""
    torch.manual_seed(length)
    fla("DeltaNet", num_heads=2)  # for its modules
    from fla.ops.log_linear_attn.naive import naive_log_linear_attn
    shapes = {"q": (k,), "k": (k,), "v": (v,), "g": (), "lambda": (levels,)}
    inputs = {n: torch.randn(BATCH, length, heads, *shape) for n, shape in shapes.items()}
    inputs = {n: (-x.abs() * 0.3 if n == "g" else x.abs() if n == "lambda" else x).requires_grad_() for n, x in inputs.items()}
    dy = torch.randn(BATCH, length, heads, v)
    with Exactly():
        y = naive_log_linear_attn(*(x.double() for x in inputs.values()), 0.5)
        (y * dy).sum().backward()
    out = {"y": y, "dy": dy} | {f"w.{n}": x for n, x in inputs.items()} | {f"g.{n}": x.grad for n, x in inputs.items()}
    save_file({n: t.detach().float().contiguous() for n, t in out.items()}, HERE / f"fla_log_linear_rule_{length}.safetensors")


def kda(length, heads=2, k=8, v=12):
    """The rule of Kimi Delta Attention alone, as `log_linear`; some channels forget at once."""
    torch.manual_seed(length)
    fla("DeltaNet", num_heads=2)  # for its modules
    from fla.ops.kda.naive import naive_recurrent_kda
    shapes = {"q": (k,), "k": (k,), "v": (v,), "g": (k,), "beta": ()}
    inputs = {n: torch.randn(BATCH, length, heads, *shape) for n, shape in shapes.items()}
    inputs |= {"k": F.normalize(inputs["k"], dim=-1), "g": -torch.exp(2 * inputs["g"]), "beta": inputs["beta"].sigmoid()}
    inputs = {n: x.requires_grad_() for n, x in inputs.items()}
    dy = torch.randn(BATCH, length, heads, v)
    with Exactly():
        y, state = naive_recurrent_kda(*(x.double() for x in inputs.values()), 0.5, output_final_state=True)
        (y * dy).sum().backward()
    out = {"y": y, "dy": dy, "state": state} | {f"w.{n}": x for n, x in inputs.items()} | {f"g.{n}": x.grad for n, x in inputs.items()}
    save_file({n: t.detach().float().contiguous() for n, t in out.items()}, HERE / f"fla_kda_rule_{length}.safetensors")


RULES = {"fla_log_linear_rule": log_linear, "fla_kda_rule": kda}
for name in sys.argv[1:] or [*CASES, *RULES]:
    for length in LENGTHS:
        RULES[name](length) if name in RULES else make(name, length)
