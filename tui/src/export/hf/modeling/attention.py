# --- Attention: full, or over a window ---------------------------------------------------------------------------------

try:
    from flash_attn import flash_attn_func
except ImportError:
    flash_attn_func = None


def visible(t, keys, window, place, device):
    """Which of the last `keys` positions each of the last t may see, [B or 1, 1, T, keys]. Padding sees itself."""
    query = torch.arange(keys - t, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)
    seen = key <= query
    if window is not None:
        seen = seen & (key > query - window)
    seen = seen[None, None]
    if place.padding is not None:
        first = place.first + t - keys  # position of the first key
        seen = seen & (key + first >= place.padding[:, None])[:, None, None] | (key == query)
    return seen


def in_blocks(q, k, v, window):
    """Windowed attention whose work grows with T · window: queries in blocks of a window, each with its own block of keys
    and the one before. q, k, v [B, H, T, K]."""
    b, h, t, _ = q.shape
    blocks = -(-t // window)
    fill = blocks * window - t
    q = F.pad(q, (0, 0, 0, fill)).reshape(b, h, blocks, window, -1)

    def pairs(x):
        x = F.pad(x, (0, 0, window, fill)).reshape(b, h, blocks + 1, window, -1)
        return torch.cat([x[:, :, :-1], x[:, :, 1:]], 3)

    query = torch.arange(window, 2 * window, device=q.device)[:, None]
    key = torch.arange(2 * window, device=q.device)
    seen = (key <= query) & (key > query - window)
    not_before = torch.arange(blocks, device=q.device)[:, None, None] > 0
    seen = seen & (not_before | (key >= window))
    o = F.scaled_dot_product_attention(q, pairs(k), pairs(v), attn_mask=seen)
    return o.reshape(b, h, blocks * window, -1)[:, :, :t]


def attend(q, k, v, window, place):
    """Softmax attention of q [B, T, H, K] over k and v [B, S, H_kv, K], whose last T are at the positions of q."""
    t, keys = q.shape[1], k.shape[1]
    if flash_attn_func and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and place.padding is None:
        reach = (-1, -1) if window is None else (window - 1, 0)
        return flash_attn_func(q, k, v, causal=True, window_size=reach)
    groups = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(groups, 2).transpose(1, 2) for x in (k, v))
    q = q.transpose(1, 2)
    inside = window is None or keys <= window
    if place.padding is not None or not inside and t != keys or t not in (1, keys):
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=visible(t, keys, window, place, q.device))
    elif inside:
        o = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
    else:
        o = in_blocks(q, k, v, window)
    return o.transpose(1, 2)


@part("attention")
class Attention(nn.Module):
    """Grouped-query softmax attention with rotary positions on halves of the first `rotary_percent` of a head's channels
    (0: no positions), or with Selective RoPE; over the whole past or the last `window` positions. `qk_norm` is of each head,
    or "whole": of all heads together. A gate multiplies the heads' outputs by its sigmoid."""

    def __init__(self, d, heads, kv_heads, head_width, window=None, qk_norm=False, selective_rope=False,
                 output_gate=False, rotary_percent=100, rope_theta=10000, phases=None):
        super().__init__()
        self.heads, self.kv_heads, self.width, self.window = heads, kv_heads, head_width, window
        self.q = Matrix(d, heads * head_width)
        self.k, self.v = Matrix(d, kv_heads * head_width), Matrix(d, kv_heads * head_width)
        self.o = Matrix(heads * head_width, d, "writer")
        self.g = Matrix(d, heads * head_width) if output_gate else None
        self.whole_norm = qk_norm == "whole"
        norms = [head_width * (n if self.whole_norm else 1) for n in (heads, kv_heads)]
        self.q_norm, self.k_norm = map(RMSNorm, norms) if qk_norm else (None, None)
        self.turned, self.theta = 0 if selective_rope else head_width * rotary_percent // 100, rope_theta
        self.phi = PARTS["selective_rope"](d, kv_heads, head_width, phases) if selective_rope else None

    def heads_of(self, x, place, angles=None):
        """q [B, T, H, K], k and v [B, T, H_kv, K] of x [B, T, d] at their positions, or turned by the angles of Selective RoPE."""
        b, t, _ = x.shape
        q = self.q(x).reshape(b, t, self.heads, self.width)
        k = self.k(x).reshape(b, t, self.kv_heads, self.width)
        v = self.v(x).reshape(b, t, self.kv_heads, self.width)
        if angles is not None:  # before the norms; a group of queries turns with its key
            q, k = turn(q, angles.repeat_interleave(self.heads // self.kv_heads, 2)), turn(k, angles)
        if self.q_norm is not None and self.whole_norm:
            q, k = (norm(x.flatten(2)).view_as(x) for norm, x in ((self.q_norm, q), (self.k_norm, k)))
        elif self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.turned:
            angles = place.positions(t, x.device)[:, :, None, None] * frequencies(self.turned // 2, self.theta, x)
            q, k = (torch.cat([turn(x[..., :self.turned], angles), x[..., self.turned:]], -1) for x in (q, k))
        return q, k, v

    def written(self, o, x):
        """What the heads' outputs o [B, T, H · K] add to the stream, [B, T, d]."""
        return self.o(o if self.g is None else o * torch.sigmoid(self.g(x)))

    def forward(self, x, place, memory=None):
        """x [B, T, d] → [B, T, d]."""
        angles = None if self.phi is None else self.phi(x, memory)
        q, k, v = self.heads_of(x, place, angles)
        if memory is not None:
            if "k" in memory:
                k, v = torch.cat([memory["k"], k], 1), torch.cat([memory["v"], v], 1)
            kept = k.shape[1] if self.window is None else min(self.window - 1, k.shape[1])
            memory["k"], memory["v"] = k[:, k.shape[1] - kept:], v[:, k.shape[1] - kept:]
        return self.written(attend(q, k, v, self.window, place).flatten(2), x)
