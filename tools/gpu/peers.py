"""The same work in other software, on the same GPU: PyTorch's SDPA, cuBLAS through PyTorch, fla where it is installed.

A JSON object a line. Weights, caches and states are rotated past the last-level cache; launches are in CUDA graphs.
"""

import json
import statistics

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


def main():
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(0), "torch", torch.__version__, flush=True)
    for part in (ceilings, products, attention, recurrent):
        try:
            part()
        except Exception as error:  # a peer that does not run here is a line, not the end
            print(f"{part.__name__}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
