# --- Short convolutions ------------------------------------------------------------------------------------------------


class Convolution(nn.Module):
    """Depthwise and causal; the last tap multiplies the current position."""

    def __init__(self, channels, taps=CONV_WIDTH, bias=False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, taps))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None

    def forward(self, x, memory=None, name="conv"):
        """x [B, T, C] → [B, T, C]; `memory` keeps the last inputs under `name`."""
        before = None if memory is None else memory.get(name)
        if before is None:
            before = x.new_zeros(x.shape[0], self.weight.shape[1] - 1, x.shape[2])
        x = torch.cat([before.to(x.dtype), x], 1)
        if memory is not None:
            memory[name] = x[:, x.shape[1] - before.shape[1]:].contiguous()
        bias = None if self.bias is None else self.bias.to(x.dtype)
        y = F.conv1d(x.transpose(1, 2), self.weight[:, None].to(x.dtype), bias, groups=x.shape[2])
        return y.transpose(1, 2)
