# --- A mixture of experts ----------------------------------------------------------------------------------------------


class Matrices(nn.Module):
    """As many maps without bias as there are experts, [E, outputs, inputs]. `role` as of a Matrix."""

    def __init__(self, experts, inputs, outputs, role="reader"):
        super().__init__()
        self.in_features, self.role = inputs, role
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))


@part("moe")
class MixtureOfExperts(nn.Module):
    """SwiGLUs of which a router chooses `per_token` for each token, and shared ones that take all. The weights of the chosen
    are the softmax over their logits; that of a single one is its softmax over all. No expert is ever full."""

    def __init__(self, d, width, experts, per_token, shared=0):
        super().__init__()
        self.experts, self.per_token = experts, per_token
        self.router = Matrix(d, experts)
        self.gate, self.up = Matrices(experts, d, width), Matrices(experts, d, width)
        self.down = Matrices(experts, width, d, "writer")
        self.shared = FeedForward(d, width * shared) if shared else None

    def forward(self, x, balance=None):
        """x [..., d] → [..., d]; adds E Σ f_i P_i to `balance` (Switch, arXiv 2101.03961, eq. 4): f_i the share of all
        choices that fell on expert i, P_i the mean of its softmax over all."""
        rows = x.reshape(-1, x.shape[-1])
        logits = F.linear(wide(rows), wide(self.router.weight))
        largest, chosen = logits.topk(self.per_token, -1)
        weights = largest.softmax(-1) if self.per_token > 1 else logits.softmax(-1).gather(-1, chosen)
        if balance is not None:
            shares = chosen.flatten().bincount(minlength=self.experts) / chosen.numel()
            balance.append(self.experts * (shares * logits.softmax(-1).mean(0)).sum())
        y = torch.zeros_like(rows)
        matrices = zip(*(of.weight.unbind(0) for of in (self.gate, self.up, self.down)))
        for expert, (gate, up, down) in enumerate(matrices):
            token, place = (chosen == expert).nonzero(as_tuple=True)
            if token.numel():
                h = rows[token]
                h = F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down)
                y = y.index_add(0, token, h * weights[token, place, None].to(h.dtype))
        y = y.view_as(x)
        return y if self.shared is None else y + self.shared(x)
