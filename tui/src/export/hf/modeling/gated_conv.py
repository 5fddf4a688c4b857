# --- Gated short convolution, as in LFM2 (arXiv 2511.23404) ------------------------------------------------------------


@part("gated_short_conv")
class GatedConv(nn.Module):
    """C ⊙ conv(B ⊙ x̃) between an input projection to B, C and x̃ and an output projection."""

    def __init__(self, d, channels, kernel_width):
        super().__init__()
        setattr(self, "in", Matrix(d, 3 * channels))
        self.conv = Convolution(channels, kernel_width)
        self.out = Matrix(channels, d, "writer")

    def forward(self, x, place, memory=None):
        """x [B, T, d] → [B, T, d]."""
        b, c, x = getattr(self, "in")(x).chunk(3, -1)
        return self.out(c * self.conv(b * x, memory))
