# --- Mamba2 (arXiv 2405.21060) -----------------------------------------------------------------------------------------
# S ← e^g S + k vᵀ, o = Sᵀq: q = C and k = B are shared by the heads, v = Δ·x, g = Δ·A.


def linear_chunks(q, k, v, g, state):
    """Parallel within chunks: q, k [B, T, N], v [B, T, H, P], g [B, T, H], state [B, H, N, P]. Section 6 of the paper."""
    t = q.shape[1]
    q, k = (into_chunks(x[:, :, None], CHUNK) for x in (q, k))  # [B, 1, N, C, K]
    v = into_chunks(v, CHUNK)
    decays = Decays(into_chunks(g[..., None], CHUNK)[..., 0])
    inside = q @ k.transpose(-1, -2) * decays.between @ v
    added = k.transpose(-1, -2) @ (v * decays.to_end)  # [B, H, N, K, P]
    outputs = []
    for n in range(q.shape[2]):
        outputs.append(inside[:, :, n] + q[:, :, n] @ state * decays.since_start[:, :, n])
        state = state * decays.whole[:, :, n] + added[:, :, n]
    return from_chunks(torch.stack(outputs, 2), t), state


def linear_attention(q, k, v, g, state):
    """The rule over T positions, by flash-linear-attention's kernel on a GPU."""
    if q.shape[1] == 1:
        state = state * g[:, 0, :, None, None].exp() + wide(k[:, 0, None, :, None] * v[:, 0, :, None])
        return torch.einsum("bk,bhkv->bhv", wide(q[:, 0]), state)[:, None], state
    kernel = fla("simple_gla.chunk_simple_gla", q, k, v, g) if q.is_cuda else None
    if kernel is None:
        return linear_chunks(q, k, v, g, state)
    shared = [x[:, :, None].expand(-1, -1, v.shape[2], -1).to(v.dtype).contiguous() for x in (q, k)]
    return kernel(*shared, v.contiguous(), g.float(), scale=1.0, initial_state=state.float(), output_final_state=True)


@part("mamba2")
class Mamba2(nn.Module):
    """One input projection, one convolution over x, B and C, the recurrence with a skip D·x, and an output that is gated
    first and normed after."""

    def __init__(self, d, heads, head_width, state_width, levels=None):
        super().__init__()
        self.heads, self.width, self.state_width = heads, head_width, state_width
        self.inner, self.level_rows = heads * head_width, heads * (levels or 0)
        channels = self.inner + 2 * state_width
        setattr(self, "in", Matrix(d, self.inner + channels + heads + self.level_rows))
        self.conv = Convolution(channels, bias=True)
        self.A_log, self.dt_bias = nn.Parameter(torch.empty(heads)), nn.Parameter(torch.empty(heads))
        self.D = nn.Parameter(torch.ones(heads))
        if levels:
            self.L = nn.Parameter(torch.ones(heads, levels))
        self.norm = RMSNorm(self.inner)
        self.out = Matrix(self.inner, d, "writer")

    def forward(self, x, place, memory=None):
        """x [B, T, d] → [B, T, d]."""
        b, t, _ = x.shape
        channels = self.inner + 2 * self.state_width
        rows = getattr(self, "in")(x)
        z, mixed, dt, levels = rows.split([self.inner, channels, self.heads, self.level_rows], -1)
        mixed = F.silu(self.conv(mixed, memory))
        if place.real is not None:  # the bias of the convolution, in the padding
            mixed = mixed * place.real[..., None]
        v, k, q = mixed.split([self.inner, self.state_width, self.state_width], -1)
        v = v.reshape(b, t, self.heads, self.width)
        dt = F.softplus(wide(dt) + self.dt_bias)
        g = -wide(self.A_log).exp() * dt
        written = v * dt[..., None]
        if self.level_rows:
            scales = F.softplus(wide(levels).reshape(b, t, self.heads, -1) * self.L)
            shared = [x[:, :, None].expand(-1, -1, self.heads, -1) for x in (q, k)]
            y = PARTS["log_linear"](*shared, written, g, None, scales, place, memory)
        else:
            state = None if memory is None else memory.get("state")
            if state is None:
                state = wide(v.new_zeros(b, self.heads, self.state_width, self.width))
            y, state = linear_attention(q, k, written, g, state)
            if memory is not None:
                memory["state"] = state
        y = (y + v * self.D[:, None]).reshape(b, t, self.inner).to(x.dtype)
        return self.out(self.norm(y * F.silu(z)))
