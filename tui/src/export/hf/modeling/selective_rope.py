# --- Selective RoPE (arXiv 2511.17388) ---------------------------------------------------------------------------------


def rope_temperatures(half):
    """The frequencies of RoPE with θ = 5e5."""
    return frequencies(half, 5e5, torch.empty(0))


def rfa_temperatures(half):
    """Those of random Fourier features, at most 1/4."""
    halves = torch.linspace(0, 0.9999 * math.pi / 2, half, dtype=torch.float64)
    return 0.25 * halves.tan() / halves[-1].tan()


TEMPERATURES = {"rope": rope_temperatures, "learnt": rope_temperatures, "rfa": rfa_temperatures,
                "ones": lambda half: torch.ones(half, dtype=torch.float64)}


@part("selective_rope")
class SelectiveRope(nn.Module):
    """q and k turn by angles that are learnt from the input and summed over the past: τ · Σ (conv(W u) + e^b) · σ(W_g u + b_g),
    u the input in shares of unit length. W has low rank, or full rank for each head on its share, its rows of length `scale`."""

    RANK = 16

    def __init__(self, d, heads, width, forms=None):
        super().__init__()
        forms = forms or {}
        self.heads, self.half = heads, width // 2
        # Channels of x that are normed together: a head's share, where the heads divide d.
        self.share = d // heads if d % heads == 0 else d
        self.down = self.full = self.scale = None
        if forms.get("full_rank"):
            self.full = Matrix(self.share, heads * self.half, "inner")
            self.scale = nn.Parameter(torch.ones(heads))
        else:
            self.down = Matrix(d, self.RANK)
            self.up = Matrix(self.RANK, heads * self.half, "inner")
        self.conv = Convolution(heads * self.half)
        self.bias = nn.Parameter(torch.zeros(heads, self.half)) if forms.get("bias") else None
        self.gate = self.gate_bias = None
        if forms.get("gate"):
            self.gate, self.gate_bias = Matrix(d, heads), nn.Parameter(torch.zeros(heads))
        self.fixed = TEMPERATURES[forms.get("temperature", "rope")]
        self.temperature = None
        if forms.get("temperature") == "learnt":
            self.temperature = nn.Parameter(self.fixed(self.half).float())

    def projected(self, unit):
        """φ before the convolution, [B, T, H · K/2], of [B, T, d]."""
        if self.down is not None:
            return self.up(self.down(unit))
        rows = wide(self.full.weight).unflatten(0, (self.heads, self.half))
        rows = (rows / rows.norm(dim=-1, keepdim=True) * wide(self.scale)[:, None, None]).to(unit.dtype)
        shares = unit.unflatten(-1, (-1, self.share))  # [B, T, H or 1, share]
        return torch.einsum("bthi,hoi->btho", shares.expand(-1, -1, self.heads, -1), rows).flatten(2)

    def forward(self, x, memory):
        """Angles [B, T, H, K/2] at x [B, T, d]."""
        b, t, d = x.shape
        unit = l2_norm(x.reshape(b, t, d // self.share, self.share)).reshape(b, t, d).to(x.dtype)
        phi = self.conv(wide(self.projected(unit)), memory, "phi").unflatten(-1, (self.heads, self.half))
        if self.bias is not None:
            phi = phi + wide(self.bias).exp()
        if self.gate is not None:
            phi = phi * (wide(self.gate(unit)) + self.gate_bias).sigmoid()[..., None]
        sums = phi.cumsum(1, dtype=torch.float64)  # of many turns only what is left of the last one counts
        if memory is not None:
            sums = sums + memory.get("phi_sum", 0.0)
            memory["phi_sum"] = sums[:, -1:]
        temperatures = self.fixed(self.half) if self.temperature is None else self.temperature
        return sums * temperatures.to(sums)
