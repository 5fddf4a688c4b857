# --- Chunks ------------------------------------------------------------------------------------------------------------


def into_chunks(x, size):
    """[B, T, H, W] → [B, H, N, C, W]: time in chunks, the last one filled with zeros, in float32 or wider."""
    b, t, h, w = x.shape
    n = -(-t // size)
    return F.pad(wide(x), (0, 0, 0, 0, 0, n * size - t)).reshape(b, n, size, h, w).permute(0, 3, 1, 2, 4)


def from_chunks(x, t):
    """[B, H, N, C, W] → [B, T, H, W]."""
    b, h, n, size, w = x.shape
    return x.permute(0, 2, 3, 1, 4).reshape(b, n * size, h, w)[:, :t]


def future(size, device):
    """True above the diagonal."""
    return torch.ones(size, size, dtype=torch.bool, device=device).triu(1)


def unit_lower_inverse(a):
    """(I + strictLower(A))⁻¹ of [..., C, C]."""
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return torch.linalg.solve_triangular(a.tril(-1) + identity, identity.expand_as(a), upper=False, unitriangular=True)


class Decays:
    """Products of decays inside a chunk, from their logarithms g [..., C]: sums in float64, whose differences stay small."""

    def __init__(self, g):
        sums = g.double().cumsum(-1)
        between = (sums[..., :, None] - sums[..., None, :]).masked_fill(future(g.shape[-1], g.device), -math.inf)
        # γ_i/γ_j for i ≥ j, else 0: [..., C, C]; γ_i and γ_C/γ_i: [..., C, 1]; γ_C: [..., 1, 1]
        self.between = between.exp().to(g.dtype)
        self.since_start = sums.exp().to(g.dtype)[..., None]
        self.to_end = (sums[..., -1:] - sums).exp().to(g.dtype)[..., None]
        self.whole = sums[..., -1:].exp().to(g.dtype)[..., None]
