# --- Selective RoPE (arXiv 2511.17388) ---------------------------------------------------------------------------------


@part("selective_rope")
class SelectiveRope(nn.Module):
    """q and k turn by angles that are learnt from the input and summed over the past."""

    RANK, THETA = 16, 5e5

    def __init__(self, d, heads, width):
        super().__init__()
        self.heads, self.half = heads, width // 2
        # Channels of x that are normed together: a head's share, where the heads divide d.
        self.share = d // heads if d % heads == 0 else d
        self.down = Matrix(d, self.RANK)
        self.up = Matrix(self.RANK, heads * self.half, "inner")
        self.conv = Convolution(heads * self.half)

    def forward(self, x, memory):
        """Angles [B, T, H, K/2] at x [B, T, d]."""
        b, t, d = x.shape
        unit = l2_norm(x.reshape(b, t, d // self.share, self.share)).reshape(b, t, d).to(x.dtype)
        phi = self.conv(wide(self.up(self.down(unit))), memory, "phi")
        sums = phi.cumsum(1)
        if memory is not None:
            sums = sums + memory.get("phi_sum", 0.0)
            memory["phi_sum"] = sums[:, -1:]
        sums = sums.reshape(b, t, self.heads, self.half)
        return sums * frequencies(self.half, self.THETA, x).to(sums.dtype)
