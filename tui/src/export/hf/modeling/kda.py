# --- Kimi Delta Attention (arXiv 2510.26692) ---------------------------------------------------------------------------
# S ← Diag(e^g) S; S ← S + β k (v − Sᵀk)ᵀ; o = scale · Sᵀq: the delta rule with a decay for each channel of the keys.

# Positions of a block of a chunk: e^{−sum of g} overflows over longer spans.
BLOCK = 16


def kda_pairs(x, k, sums):
    """Σ_c x_ic k_jc e^{G_ic − G_jc} for i ≥ j, else 0: [..., C, C] from x, k and G [..., C, K]. Within a block all pairs
    have exponents of their own; of two blocks the later is counted from its begin, and the earlier up to there."""
    rows = []
    for at in range(0, CHUNK, BLOCK):
        own = slice(at, at + BLOCK)
        between = sums[..., own, None, :] - sums[..., None, own, :]
        between = between.masked_fill(future(BLOCK, x.device)[..., None], -math.inf).exp().to(x.dtype)
        row = torch.einsum("...ic,...jc,...ijc->...ij", x[..., own, :], k[..., own, :], between)
        if at:
            begin = sums[..., at - 1:at, :]
            later = x[..., own, :] * (sums[..., own, :] - begin).exp().to(x.dtype)
            earlier = k[..., :at, :] * (begin - sums[..., :at, :]).exp().to(x.dtype)
            row = torch.cat([later @ earlier.transpose(-1, -2), row], -1)
        rows.append(F.pad(row, (0, CHUNK - at - BLOCK)))
    return torch.cat(rows, -2)


def kda_chunks(q, k, v, g, beta, state):
    """Parallel within chunks: q, k, g [B, T, H, K], v [B, T, H, V], beta [B, T, H], state [B, H, K, V]."""
    t = q.shape[1]
    q, k, v, g = (into_chunks(x, CHUNK) for x in (q, k, v, g))
    k_beta = k * into_chunks(beta[..., None], CHUNK)
    sums = g.double().cumsum(-2)
    since_start, to_end = sums.exp().to(q.dtype), (sums[..., -1:, :] - sums).exp().to(q.dtype)
    whole = sums[..., -1, :, None].exp().to(q.dtype)  # [B, H, N, K, 1]
    inverse = unit_lower_inverse(kda_pairs(k_beta, k, sums))
    scores = kda_pairs(q, k, sums)
    u = inverse @ (v * into_chunks(beta[..., None], CHUNK))
    w = inverse @ (k_beta * since_start)
    q, to_end = q * since_start, (k * to_end).transpose(-1, -2)
    outputs = []
    for n in range(q.shape[2]):
        difference = u[:, :, n] - w[:, :, n] @ state
        outputs.append(q[:, :, n] @ state + scores[:, :, n] @ difference)
        state = state * whole[:, :, n] + to_end[:, :, n] @ difference
    return from_chunks(torch.stack(outputs, 2), t), state


def kda_rule(q, k, v, g, beta, state):
    """The rule over T positions, by flash-linear-attention's kernel on a GPU."""
    if q.shape[1] == 1:
        q, k, v, beta = wide(q[:, 0]), wide(k[:, 0]), wide(v[:, 0]), beta[:, 0, :, None]
        state = state * g[:, 0, ..., None].exp()
        difference = beta * (v - torch.einsum("bhk,bhkv->bhv", k, state))
        state = state + k[..., None] * difference[:, :, None]
        return torch.einsum("bhk,bhkv->bhv", q, state)[:, None], state
    kernel = fla("kda.chunk_kda") if q.is_cuda else None
    if kernel is None:
        return kda_chunks(q, k, v, g, beta, state)
    narrow = v.dtype if v.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    return kernel(q.to(narrow), k.to(narrow), v.to(narrow), g.float(), beta.to(narrow), scale=1.0,
                  initial_state=state.float(), output_final_state=True)


@part("kda")
class Kda(nn.Module):
    """Decays and the output's gate come from projections of low rank; the gate is σ, after the norm."""

    def __init__(self, d, heads, key_width, value_width):
        super().__init__()
        self.heads, self.key_width, self.value_width = heads, key_width, value_width
        keys, values = heads * key_width, heads * value_width
        self.q, self.k, self.v, self.b = Matrix(d, keys), Matrix(d, keys), Matrix(d, values), Matrix(d, heads)
        self.f_a, self.f_b = Matrix(d, value_width), Matrix(value_width, keys, "inner")
        self.g_a, self.g_b = Matrix(d, value_width), Matrix(value_width, values, "inner")
        self.A_log, self.dt_bias = nn.Parameter(torch.empty(heads)), nn.Parameter(torch.empty(keys))
        self.q_conv, self.k_conv, self.v_conv = Convolution(keys), Convolution(keys), Convolution(values)
        self.norm = RMSNorm(value_width)
        self.o = Matrix(values, d, "writer")

    def forward(self, x, place, memory=None):
        """x [B, T, d] → [B, T, d]; x is 0 in the padding, where nothing is written then."""
        b, t, _ = x.shape
        of_keys, of_values = (b, t, self.heads, self.key_width), (b, t, self.heads, self.value_width)
        q = F.silu(self.q_conv(self.q(x), memory, "q")).reshape(of_keys)
        k = F.silu(self.k_conv(self.k(x), memory, "k")).reshape(of_keys)
        v = F.silu(self.v_conv(self.v(x), memory, "v")).reshape(of_values)
        dt = F.softplus(wide(self.f_b(self.f_a(x))) + self.dt_bias).reshape(of_keys)
        g = -wide(self.A_log).exp()[:, None] * dt
        beta = wide(self.b(x)).sigmoid()
        state = None if memory is None else memory.get("state")
        if state is None:
            state = wide(x.new_zeros(b, self.heads, self.key_width, self.value_width))
        o, state = kda_rule(l2_norm(q) * self.key_width**-0.5, l2_norm(k), v, g, beta, state)
        if memory is not None:
            memory["state"] = state
        o = self.norm(o.to(x.dtype)) * self.g_b(self.g_a(x)).reshape(of_values).sigmoid()
        return self.o(o.reshape(b, t, -1))
