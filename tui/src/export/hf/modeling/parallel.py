# --- Parallel heads ----------------------------------------------------------------------------------------------------


class Branch:
    """What one of two mixers remembers, inside what their layer does."""

    def __init__(self, memory, name):
        self.memory, self.name = memory, name

    def __contains__(self, key):
        return f"{self.name}.{key}" in self.memory

    def __getitem__(self, key):
        return self.memory[f"{self.name}.{key}"]

    def __setitem__(self, key, value):
        self.memory[f"{self.name}.{key}"] = value

    def get(self, key, default=None):
        return self.memory.get(f"{self.name}.{key}", default)


@part("parallel")
class Parallel(nn.Module):
    """Attention beside Mamba2 or a delta rule: both read the same input, and both are added, with a norm behind each or none."""

    def __init__(self, d, heads, kv_heads, head_width, beside_heads, beside_key_width, beside_value_width, window=0,
                 qk_norm=False, rotary_percent=100, beside="m2", branch_norms=True):
        super().__init__()
        self.attention = PARTS["attention"](d, heads, kv_heads, head_width, window or None, qk_norm,
                                            rotary_percent=rotary_percent)
        key, value = beside_key_width, beside_value_width
        if beside == "m2":
            self.beside = PARTS["mamba2"](d, heads=beside_heads, head_width=value, state_width=key)
        else:
            kind = "gated_deltanet" if beside == "gdn" else "deltanet"
            self.beside = PARTS[kind](d, heads=beside_heads, key_width=key, value_width=value)
        self.attention_norm, self.beside_norm = (RMSNorm(d) if branch_norms else nn.Identity() for _ in range(2))

    def forward(self, x, place, memory=None):
        """x [B, T, d] → [B, T, d]."""
        of = lambda name: None if memory is None else Branch(memory, name)
        y = self.attention_norm(self.attention(x, place, of("attention")))
        return y + self.beside_norm(self.beside(x, place, of("beside")))
