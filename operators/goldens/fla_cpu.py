"""fla's layers on a CPU, exact and slow: its Triton ops replaced by its own naive references, its fused modules by plain
torch. Import with `shim` on the path. Each op leaves its final state in STATE, which `make.py` sets."""
import warnings
warnings.filterwarnings("ignore")
import torch, torch.nn.functional as F
import fla.layers.gated_deltanet as m_gdn, fla.layers.delta_net as m_dn, fla.layers.gated_deltaproduct as m_gdp
import fla.layers.log_linear_mamba2 as m_llm2
import fla.modules as M, fla.modules.norm.layernorm_gated as gated_norm, fla.modules.activations as activations
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.gated_delta_product.naive import naive_recurrent_gated_delta_product
from fla.ops.log_linear_attn.naive import naive_log_linear_attn

STATE = []


def l2(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def gated_delta_rule(q, k, v, g, beta, use_beta_sigmoid_in_kernel=False, allow_neg_eigval=False, use_gate_in_kernel=False,
                     A_log=None, dt_bias=None, **_):
    if use_gate_in_kernel:
        g = -A_log.float().exp() * F.softplus(g.float() + dt_bias.float())
    if use_beta_sigmoid_in_kernel:
        beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    q, k = (l2(x).repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    o, s = naive_recurrent_gated_delta_rule(q, k, v, beta, g, output_final_state=True)
    STATE[:] = [s]
    return o.to(v.dtype), None


def delta_rule(q, k, v, beta, **_):
    return gated_delta_rule(q, k, v, torch.zeros_like(beta), beta)


def delta_product(q, k, v, g, beta, num_householder=1, **_):
    o, s = naive_recurrent_gated_delta_product(l2(q), l2(k), v, g, beta, q.shape[-1] ** -0.5, output_final_state=True,
                                               num_householder=num_householder)
    STATE[:] = [s]
    return o, None


def log_linear(q, k, v, g, level_scales, scale=1.0, **_):
    o = naive_log_linear_attn(*(x.float() for x in (q, k, v, g, level_scales)), scale)
    return o.to(v.dtype), None


def conv(x, weight, bias=None, activation=None, **_):
    weight = weight.unsqueeze(1) if weight.dim() == 2 else weight
    y = F.conv1d(x.transpose(1, 2), weight, bias, padding=3, groups=x.shape[-1])[..., : x.shape[1]].transpose(1, 2)
    return (F.silu(y) if activation else y), None


def rms(self, x, *gate, **_):
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight
    return y * F.silu(gate[0]) if gate else y


def gate_then_rms(x, weight, bias, z=None, eps=1e-6, **_):
    x = x * F.silu(z)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


m_gdn.chunk_gated_delta_rule = m_gdn.fused_recurrent_gated_delta_rule = gated_delta_rule
m_gdn.causal_conv1d = conv
m_dn.chunk_delta_rule = m_dn.fused_recurrent_delta_rule = delta_rule
m_gdp.chunk_gated_delta_product = delta_product
m_llm2.chunk_log_linear_attn, m_llm2.rmsnorm_fn = log_linear, gate_then_rms
M.ShortConvolution.forward = lambda self, x, **_: conv(x, self.weight, self.bias, self.activation)
M.RMSNorm.forward = M.FusedRMSNormGated.forward = rms
torch.utils.checkpoint.checkpoint = lambda f, *a, use_reentrant=None, **k: f(*a, **k)  # nothing is computed twice
m_llm2.ACT2FN = {"silu": F.silu, "swish": F.silu}
for name in ("silu", "swish"):
    activations.ACT2FN[name] = F.silu


class LogLinearMamba2(m_llm2.LogLinearMamba2):
    def forward(self, x):
        self.causal_conv1d_fn, self.backend = conv, "triton"
        return self.cuda_kernels_forward(x)[0], None


DeltaNet, GatedDeltaNet, GatedDeltaProduct = m_dn.DeltaNet, m_gdn.GatedDeltaNet, m_gdp.GatedDeltaProduct
