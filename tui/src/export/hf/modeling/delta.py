# --- The delta rule ----------------------------------------------------------------------------------------------------
# DeltaNet (arXiv 2406.06484), Gated DeltaNet (arXiv 2412.06464), DeltaProduct (arXiv 2502.10297):
# S ← e^g S, then n times S ← S + β k (v − Sᵀk)ᵀ, then o = scale · Sᵀq.


def delta_chunks(q, k, v, g, beta, state):
    """Parallel within chunks: q, k [B, T, H, K], v [B, T, H, V], g (None: no decay), beta [B, T, H], state [B, H, K, V].
    Equation 8 and section 3.3 of arXiv 2412.06464; the mask of the output is Γ."""
    t = q.shape[1]
    g = torch.zeros_like(beta) if g is None else g
    q, k, v = (into_chunks(x, CHUNK) for x in (q, k, v))
    beta = into_chunks(beta[..., None], CHUNK)
    decays = Decays(into_chunks(g[..., None], CHUNK)[..., 0])
    k_beta = k * beta
    inverse = unit_lower_inverse(k_beta @ k.transpose(-1, -2) * decays.between)
    u, w = inverse @ (v * beta), inverse @ (k_beta * decays.since_start)
    scores = q @ k.transpose(-1, -2) * decays.between
    q, to_end = q * decays.since_start, (k * decays.to_end).transpose(-1, -2)
    outputs = []
    for n in range(q.shape[2]):
        difference = u[:, :, n] - w[:, :, n] @ state
        outputs.append(q[:, :, n] @ state + scores[:, :, n] @ difference)
        state = state * decays.whole[:, :, n] + to_end[:, :, n] @ difference
    return from_chunks(torch.stack(outputs, 2), t), state


def delta_step(q, k, v, g, beta, state):
    """One position, [B, 1, H, ·]."""
    q, k, v, beta = wide(q[:, 0]), wide(k[:, 0]), wide(v[:, 0]), beta[:, 0, :, None]
    if g is not None:
        state = state * g[:, 0, :, None, None].exp()
    difference = beta * (v - torch.einsum("bhk,bhkv->bhv", k, state))
    state = state + k[..., None] * difference[:, :, None]
    return torch.einsum("bhk,bhkv->bhv", q, state)[:, None], state


def delta_rule(q, k, v, g, beta, state):
    """The rule over T positions, by flash-linear-attention's kernel on a GPU."""
    if q.shape[1] == 1:
        return delta_step(q, k, v, g, beta, state)
    kernel = None
    if q.is_cuda and g is None:
        kernel = fla("delta_rule.chunk_delta_rule")
    elif q.is_cuda:
        kernel = fla("gated_delta_rule.chunk_gated_delta_rule", q, k, v, g, beta)
    if kernel is None:
        return delta_chunks(q, k, v, g, beta, state)
    narrow = v.dtype if v.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    decay = {} if g is None else {"g": g.float()}
    return kernel(q.to(narrow), k.to(narrow), v.to(narrow), beta=beta.to(narrow), scale=1.0, initial_state=state.float(),
                  output_final_state=True, **decay)


class DeltaRule(nn.Module):
    """One module for the whole family; which parts it has stands in its shape."""

    def __init__(self, d, heads, key_width, value_width, output_gate, decay, steps=1, levels=None, options=None):
        super().__init__()
        options = options or {}
        self.heads, self.key_width, self.value_width = heads, key_width, value_width
        self.groups, self.steps = options.get("value_groups", 1), steps
        self.value_heads = heads * self.groups
        self.largest_beta = 2.0 if options.get("negative_eigenvalues") else 1.0
        self.scale = key_width**-0.5 if levels is None else 1.0
        keys, values = heads * key_width, self.value_heads * value_width
        self.q, self.k, self.v = Matrix(d, keys), Matrix(d, steps * keys), Matrix(d, steps * values)
        self.b = Matrix(d, steps * self.value_heads)
        self.a = Matrix(d, self.value_heads) if decay else None
        if decay:
            self.A_log = nn.Parameter(torch.empty(self.value_heads))
            self.dt_bias = nn.Parameter(torch.empty(self.value_heads))
        self.l = Matrix(d, self.value_heads * levels) if levels else None
        if levels:
            self.L = nn.Parameter(torch.ones(self.value_heads, levels))
        self.g = Matrix(d, values) if output_gate else None
        self.q_conv = self.k_conv = self.v_conv = None
        if options.get("short_conv", True):
            self.q_conv, self.k_conv = Convolution(keys), Convolution(steps * keys)
            self.v_conv = Convolution(steps * values)
        self.norm = RMSNorm(value_width)
        self.o = Matrix(values, d, "writer")
        self.phi = None
        if options.get("selective_rope"):
            self.phi = PARTS["selective_rope"](d, heads, key_width, options.get("phases"))

    def forward(self, x, place, memory=None):
        """x [B, T, d] → [B, T, d]; x is 0 in the padding, where nothing is written then."""
        b, t, _ = x.shape
        n, h = self.steps, self.heads
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.q_conv is not None:
            q, k, v = self.q_conv(q, memory, "q"), self.k_conv(k, memory, "k"), self.v_conv(v, memory, "v")
        q = F.silu(q).reshape(b, t, h, self.key_width)
        k = F.silu(k).reshape(b, t, n, h, self.key_width)
        v = F.silu(v).reshape(b, t * n, self.value_heads, self.value_width)
        if self.phi is not None:
            angles = self.phi(x, memory)
            q, k = turn(q, angles), turn(k, angles[:, :, None])
        # neighbouring value heads share a key head; step j of a position comes j after step 0 of it
        q = l2_norm(q).repeat_interleave(self.groups, 2) * self.scale
        k = l2_norm(k).reshape(b, t * n, h, self.key_width).repeat_interleave(self.groups, 2)
        beta = wide(self.b(x)).sigmoid().reshape(b, t * n, self.value_heads) * self.largest_beta
        g = None
        if self.a is not None:
            g = -wide(self.A_log).exp() * F.softplus(wide(self.a(x)) + self.dt_bias)
        if self.l is not None:
            scales = F.softplus(wide(self.l(x)).reshape(b, t, self.value_heads, -1) * self.L)
            o = PARTS["log_linear"](q, k, v, g, beta, scales, place, memory)
        else:
            if n > 1:  # the decay on the first step of a position, its query on the last
                q = F.pad(q[:, :, None], (0, 0, 0, 0, n - 1, 0)).flatten(1, 2)
                g = None if g is None else F.pad(g[:, :, None], (0, 0, 0, n - 1)).flatten(1, 2)
            state = None if memory is None else memory.get("state")
            if state is None:
                state = q.new_zeros(b, self.value_heads, self.key_width, self.value_width)
            o, state = delta_rule(q, k, v, g, beta, state)
            o = o[:, n - 1::n]
            if memory is not None:
                memory["state"] = state
        o = self.norm(o.to(x.dtype))
        if self.g is not None:  # the norm before the gate
            o = o * F.silu(self.g(x).reshape(o.shape))
        return self.o(o.reshape(b, t, -1))


@part("deltanet")
class DeltaNet(DeltaRule):
    def __init__(self, d, output_gate=False, **shape):
        super().__init__(d, output_gate=output_gate, decay=False, **shape)


@part("gated_deltanet")
class GatedDeltaNet(DeltaRule):
    def __init__(self, d, output_gate=True, **shape):
        super().__init__(d, output_gate=output_gate, decay=True, **shape)


@part("deltaproduct")
class DeltaProduct(DeltaRule):
    def __init__(self, d, output_gate=True, **shape):
        super().__init__(d, output_gate=output_gate, **shape)
