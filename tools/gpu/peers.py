"""The same work in other software, on the same GPU: PyTorch's SDPA, cuBLAS through PyTorch, fla and FlashInfer
where they are installed.

A JSON object a line. Weights, caches and states are rotated past the last-level cache; launches are in CUDA graphs.
"""

import json
import statistics
import sys

import torch
import torch.nn.functional as F

DEVICE, BF16 = "cuda", torch.bfloat16
COLD_BYTES = 300 << 20


def milliseconds(work, copies=1, repeats=40):
    """Median time of one of `copies` pieces of `work`, replayed as a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    samples = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / copies)
    return statistics.median(samples)


def training_milliseconds(work):
    """Of forward and backward as they are started, without a graph: the median of ten after five."""
    samples = []
    for turn in range(15):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        samples += [begin.elapsed_time(end)] if turn >= 5 else []
    return statistics.median(samples)


def say(name, ms, **more):
    print(json.dumps({"name": name, "ms": round(ms, 5), **more}), flush=True)


def ceilings():
    x = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE)
    y = torch.empty_like(x)
    ms = milliseconds(lambda: y.copy_(x))
    say("copy", ms, GB_per_s=round(2 * x.numel() / ms / 1e6))
    a = torch.randn(8192, 8192, device=DEVICE, dtype=BF16)
    ms = milliseconds(lambda: a @ a, repeats=10)
    say("cuBLAS 8192³ bf16", ms, TFLOP_per_s=round(2 * 8192**3 / ms / 1e9))


def products():
    for columns, rows in ((2048, 2048), (2048, 6160), (2048, 12288), (6144, 2048)):
        n = COLD_BYTES // (rows * columns * 2) + 1
        weights = [torch.randn(rows, columns, device=DEVICE, dtype=BF16) for _ in range(n)]
        x = torch.randn(1, columns, device=DEVICE, dtype=BF16)
        ms = milliseconds(lambda: [F.linear(x, w) for w in weights], n)
        say(f"cuBLAS {rows}x{columns} times a vector", ms, GB_per_s=round(rows * columns * 2 / ms / 1e6))


def attention():
    for positions in (1024, 8192):
        n = COLD_BYTES // (4 * positions * 128 * 4) + 1
        caches = [torch.randn(2, 1, 4, positions, 128, device=DEVICE, dtype=BF16) for _ in range(n)]
        q = torch.randn(1, 16, 1, 128, device=DEVICE, dtype=BF16)
        ms = milliseconds(lambda: [F.scaled_dot_product_attention(q, k, v, enable_gqa=True) for k, v in caches], n)
        say(f"SDPA decode over {positions}", ms, GB_per_s=round(4 * positions * 128 * 4 / ms / 1e6))
    prefill_attention()
    for batch, positions, heads in ((32, 8192, 4), (32, 2048, 16)):
        k, v = torch.randn(2, batch, heads, positions, 128, device=DEVICE, dtype=BF16)
        q = torch.randn(batch, 16, 1, 128, device=DEVICE, dtype=BF16)
        ms = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=heads < 16))
        say(f"SDPA step {batch} x {positions}, 16 heads of 128 over {heads}", ms,
            GB_per_s=round(4 * batch * positions * heads * 128 / ms / 1e6))


def prefill_attention():
    """In graphs of five, as ours."""
    shapes = ((1, 8192, 16, 16, 128), (1, 8192, 16, 4, 128), (1, 8192, 32, 32, 64), (4, 4096, 16, 16, 128),
              (1, 32768, 16, 16, 128), (1, 1024, 16, 16, 128))
    for batch, positions, heads, over, width in shapes:
        q = torch.randn(batch, heads, positions, width, device=DEVICE, dtype=BF16)
        k, v = torch.randn(2, batch, over, positions, width, device=DEVICE, dtype=BF16)
        work = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=over < heads)  # noqa: E731
        ms = milliseconds(lambda: [work() for _ in range(5)], 5, repeats=25)
        rate = round(2 * batch * positions**2 * heads * width / ms / 1e9)
        shared = f" over {over}" if over < heads else ""
        say(f"SDPA prefill {batch}x{positions}, {heads} heads of {width}{shared}", ms, TFLOP_per_s=rate)


def recurrent():
    from fla.ops.delta_rule import fused_recurrent_delta_rule
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule

    n = COLD_BYTES // (16 * 128 * 256 * 4) + 1
    states = [torch.zeros(1, 16, 128, 256, device=DEVICE) for _ in range(n)]
    q, k = (F.normalize(torch.randn(1, 1, 16, 128, device=DEVICE), dim=-1).to(BF16) for _ in range(2))
    v, b = torch.randn(1, 1, 16, 256, device=DEVICE, dtype=BF16), torch.rand(1, 1, 16, device=DEVICE, dtype=BF16)
    g = F.logsigmoid(torch.randn(1, 1, 16, device=DEVICE))
    moved = 2 * 16 * 128 * 256 * 4
    with torch.no_grad():
        ms = milliseconds(
            lambda: [
                fused_recurrent_gated_delta_rule(q, k, v, g, b, initial_state=s, output_final_state=True)
                for s in states
            ],
            n,
        )
        say("fla Gated DeltaNet step, 16 heads 128x256", ms, GB_per_s=round(moved / ms / 1e6))
        ms = milliseconds(
            lambda: [fused_recurrent_delta_rule(q, k, v, b, initial_state=s, output_final_state=True) for s in states], n
        )
        say("fla DeltaNet step, 16 heads 128x256", ms, GB_per_s=round(moved / ms / 1e6))


def prefill():
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.simple_gla import chunk_simple_gla

    for positions in (8192, 32768):
        def draw(heads):
            return torch.randn(1, positions, heads, 128, device=DEVICE, dtype=BF16)

        q, k, v = draw(32), F.normalize(draw(32), dim=-1), draw(32)
        g = F.logsigmoid(torch.randn(1, positions, 32, device=DEVICE))
        b = torch.rand(1, positions, 32, device=DEVICE, dtype=BF16)
        few_q, few_k = q[:, :, :16].contiguous(), k[:, :, :16].contiguous()
        works = {
            "gated delta rule": lambda: chunk_gated_delta_rule(few_q, few_k, v, g, b),
            "delta rule": lambda: chunk_delta_rule(q, k, v, b),
            "linear attention": lambda: chunk_simple_gla(q, k, v, g),
        }
        with torch.no_grad():
            for name, work in works.items():
                say(f"fla prefill {name} 1x{positions}", milliseconds(work, repeats=15))


def kda():
    """Kimi Delta Attention against the length of the sequence, one layer's rule of 16 heads of 128: forward, and forward
    with backward, ns a token; beside `chunked_speed FILE kda`. And one token of one sequence."""
    from fla.ops.kda import chunk_kda, fused_recurrent_kda

    for positions in (1024, 2048, 4096, 8192, 16384, 32768):
        q, k, v, dy = (torch.randn(1, positions, 16, 128, device=DEVICE, dtype=BF16) for _ in range(4))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        g = F.logsigmoid(torch.randn(1, positions, 16, 128, device=DEVICE))
        b = torch.rand(1, positions, 16, device=DEVICE, dtype=BF16)
        with torch.no_grad():
            ms = milliseconds(lambda: chunk_kda(q, k, v, g, b), repeats=15)
        say(f"fla KDA prefill 1x{positions}", ms, ns_per_token=round(ms * 1e6 / positions, 1))
        leaves = [x.requires_grad_() for x in (q, k, v, g, b)]
        ms = training_milliseconds(lambda: torch.autograd.grad(chunk_kda(*leaves)[0], leaves, dy))
        say(f"fla KDA training 1x{positions}", ms, ns_per_token=round(ms * 1e6 / positions, 1))
    n = COLD_BYTES // (16 * 128 * 128 * 4) + 1
    states = [torch.zeros(1, 16, 128, 128, device=DEVICE) for _ in range(n)]
    q, k, v = (F.normalize(torch.randn(1, 1, 16, 128, device=DEVICE), dim=-1).to(BF16) for _ in range(3))
    g, b = F.logsigmoid(torch.randn(1, 1, 16, 128, device=DEVICE)), torch.rand(1, 1, 16, device=DEVICE, dtype=BF16)
    with torch.no_grad():
        ms = milliseconds(
            lambda: [fused_recurrent_kda(q, k, v, g, b, initial_state=s, output_final_state=True) for s in states], n)
    say("fla KDA step, 16 heads 128x128", ms, GB_per_s=round(2 * 16 * 128 * 128 * 4 / ms / 1e6))


def flashinfer():
    """Where it is installed: it compiles its kernels with nvcc when they are first asked for, which takes minutes."""
    from flashinfer.gdn_prefill import chunk_gated_delta_rule

    with torch.no_grad():
        for positions in (8192, 32768):
            q, k = F.normalize(torch.randn(2, positions, 16, 128, device=DEVICE, dtype=BF16), dim=-1)
            v = torch.randn(positions, 32, 128, device=DEVICE, dtype=BF16)
            decay, b = torch.rand(2, positions, 32, device=DEVICE)
            ends = torch.tensor([0, positions], device=DEVICE)
            ms = milliseconds(lambda: chunk_gated_delta_rule(q, k, v, decay, b, cu_seqlens=ends), repeats=15)
            say(f"FlashInfer prefill gated delta rule 1x{positions}", ms)


class Step:
    """One decode step of the Nemotron-Flash-1B pattern (arXiv 2511.18890), weights random: PyTorch's products, norms and
    attention, fla's delta rule."""

    WIDTH, FFN, HEADS, KV_HEADS, HEAD, PAST, VOCABULARY = 2048, 6144, 16, 4, 128, 8192, 131072
    PATTERN = ("delta", "mamba", "attention", "mamba") * 2 + ("delta", "mamba") * 2

    def __init__(self):
        d = self.WIDTH
        self.embedding = self.weight(self.VOCABULARY, d)
        self.token = torch.zeros(1, dtype=torch.long, device=DEVICE)
        self.layers = [(getattr(self, kind), getattr(self, f"{kind}_weights")()) for kind in self.PATTERN]
        self.networks = [(self.weight(2 * self.FFN, d), self.weight(d, self.FFN)) for _ in self.PATTERN]

    @staticmethod
    def weight(*shape):
        return torch.randn(*shape, device=DEVICE, dtype=BF16) * 0.02

    def delta_weights(self):
        d = self.WIDTH
        return {
            "into": self.weight(3 * d + self.HEADS, d), "out": self.weight(d, d), "taps": self.weight(3 * d, 4),
            "recent": self.weight(3 * d, 4), "norm": self.weight(self.HEAD),
            "state": torch.zeros(1, self.HEADS, self.HEAD, self.HEAD, device=DEVICE),
        }

    def mamba_weights(self):
        d = self.WIDTH
        return {
            "into": self.weight(4 * d + 256 + 64, d), "out": self.weight(d, 2 * d), "taps": self.weight(2 * d + 256, 4),
            "recent": self.weight(2 * d + 256, 4), "norm": self.weight(2 * d),
            "rate": torch.rand(64, device=DEVICE), "skip": torch.ones(64, 1, device=DEVICE),
            "state": torch.zeros(64, 64, 128, device=DEVICE),
        }

    def attention_weights(self):
        d, kv = self.WIDTH, self.KV_HEADS * self.HEAD
        return {
            "into": self.weight(d + 2 * kv, d), "out": self.weight(d, d),
            "cache": self.weight(2, 1, self.KV_HEADS, self.PAST, self.HEAD),
        }

    @staticmethod
    def convolve(w, x):
        w["recent"].copy_(torch.cat([w["recent"][:, 1:], x.view(-1, 1)], 1))
        return F.silu((w["recent"] * w["taps"]).sum(1))

    def delta(self, w, x):
        from fla.ops.delta_rule import fused_recurrent_delta_rule

        qkv, b = F.linear(x, w["into"]).split([3 * self.WIDTH, self.HEADS], -1)
        q, k, v = self.convolve(w, qkv).view(3, 1, 1, self.HEADS, self.HEAD)
        y, state = fused_recurrent_delta_rule(
            q, k, v, b.sigmoid().view(1, 1, -1), initial_state=w["state"], output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        w["state"].copy_(state)
        return F.linear(F.rms_norm(y, (self.HEAD,), w["norm"]).view(1, -1), w["out"])

    def mamba(self, w, x):
        d = 2 * self.WIDTH
        z, xbc, dt = F.linear(x, w["into"]).split([d, d + 256, 64], -1)
        x, b, c = self.convolve(w, xbc).float().split([d, 128, 128])
        x, dt = x.view(64, 64), F.softplus(dt.float()).view(64, 1)
        w["state"].mul_(torch.exp(-dt * w["rate"][:, None])[..., None]).add_((dt * x)[..., None] * b)
        y = (w["state"] @ c + w["skip"] * x).view(1, d).to(BF16)
        return F.linear(F.rms_norm(y * F.silu(z), (d,), w["norm"]), w["out"])

    def attention(self, w, x):
        kv = self.KV_HEADS * self.HEAD
        q, k, v = F.linear(x, w["into"]).split([self.WIDTH, kv, kv], -1)
        for cache, new in zip(w["cache"], (k, v)):
            cache[:, :, -1] = new.view(1, self.KV_HEADS, self.HEAD)
        y = F.scaled_dot_product_attention(q.view(1, self.HEADS, 1, self.HEAD), *w["cache"], enable_gqa=True)
        return F.linear(y.view(1, -1), w["out"])

    @torch.no_grad()
    def __call__(self):
        h = self.embedding[self.token]
        norm = lambda h: F.rms_norm(h, (self.WIDTH,))  # noqa: E731
        for (mixer, w), (up, down) in zip(self.layers, self.networks):
            h = h + mixer(w, norm(h))
            gate, value = F.linear(norm(h), up).chunk(2, -1)
            h = h + F.linear(F.silu(gate) * value, down)
        return F.linear(norm(h), self.embedding).argmax(-1)


def step():
    say("PyTorch + fla decode Nemotron-Flash-1B, 8k cached", milliseconds(Step()))


def layers():
    """Forward and backward of one layer of causal attention, 16 heads over 4, at d 2048."""
    for batch, positions in ((4, 4096), (1, 32768)):
        into = torch.nn.Linear(2048, 3072, bias=False, device=DEVICE, dtype=BF16)
        out = torch.nn.Linear(2048, 2048, bias=False, device=DEVICE, dtype=BF16)
        x, dy = (torch.randn(batch, positions, 2048, device=DEVICE, dtype=BF16) for _ in range(2))
        x.requires_grad_()

        def work():
            q, k, v = into(x).unflatten(-1, (-1, 128)).transpose(1, 2).split([16, 4, 4], 1)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            out(y.transpose(1, 2).flatten(2)).backward(dy)

        ms = training_milliseconds(work)
        say(f"SDPA layer {batch}x{positions}", ms, tokens_per_s=round(batch * positions / ms * 1e3))


PARTS = (ceilings, products, attention, recurrent, layers, step, prefill, kda, flashinfer)
ALONE = (prefill_attention,)  # a piece of another part, only when asked for


def main():
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(0), "torch", torch.__version__, flush=True)
    for part in PARTS if len(sys.argv) == 1 else [part for part in PARTS + ALONE if part.__name__ in sys.argv]:
        try:
            part()
        except Exception as error:  # a peer that does not run here is a line, not the end
            print(f"{part.__name__}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
