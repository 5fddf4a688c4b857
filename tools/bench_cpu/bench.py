#!/usr/bin/env python3
"""Speed of single mixers on the CPU, ours and the peers' in turn, in one run: tokens/s, ratio, bound; in training, or of
the forward pass alone.

    python3 tools/bench_cpu/bench.py                 # sets up the peers in the cache folder, builds, runs, prints a table
    python3 tools/bench_cpu/bench.py --only gdn swa  # some rows
    python3 tools/bench_cpu/bench.py --only kda --precision fp32 --batch 1 --work forward training \\
        --tokens 128 256 512 1024 2048 4096          # time per token against the length of the sequence
    python3 tools/bench_cpu/bench.py --python PATH   # peers from an environment with torch, transformers and fla

Each round runs ours, then the peer, and a row is repeated while other processes take more than 5 % of the machine; what
stays disturbed is marked with `!`. The ratio is the median of the rounds' ratios.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "deltafront/bench_cpu-2"
PACKAGES = ["torch==2.11.0", "transformers==5.24.0", "numpy", "einops"]
WITHOUT_DEPENDENCIES = ["fla-core==0.6.0", "flash-linear-attention==0.6.0"]

# row, our gene at d 512, the peer, target fp32, target bf16
ROWS = [
    ("gdn", "gdn(h=6,k=64,v=128)", "transformers-gated-deltanet", 4.0, 6.0),
    ("kda", "kda(h=8,k=64,v=64)", "transformers-kda", 1.0, 1.0),
    ("mamba2", "m2(h=16,p=64,n=128)", "transformers-mamba2-chunk-64", 5.0, 5.0),
    ("mamba2-c256", "m2(h=16,p=64,n=128)", "transformers-mamba2-chunk-256", 5.0, 5.0),
    ("dn", "dn(h=8,k=64,v=64)", "fla-naive-deltanet", 4.0, None),
    ("swa", "swa(h=8,kv=8,k=64,w=256)", "sdpa-mask-256", 3.0, 3.0),
    ("attn", "attn(h=8,kv=8,k=64)", "sdpa-full", 1.0, 1.0),
]


def peers_python():
    """An environment with the peers, made on first use."""
    python = CACHE / "venv/bin/python"
    if not (CACHE / "ready").exists():
        print(f"setting up the peers in {CACHE} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
        (CACHE / "ready").touch()
    return str(python)


def build():
    """Builds our side and returns its program."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "--workspace", "--example", "mixer_server"],
                   cwd=ROOT, check=True)
    return str(ROOT / "target/release/examples/mixer_server")


class Side:
    """A process that answers a line with a line."""

    def __init__(self, command, threads):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment, cwd=ROOT)

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"no answer to `{request}`; its error stands above")
        return [float(word) for word in answer]

    def ticks(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])


def machine_ticks():
    user, nice, system, _, _, irq, softirq, steal = map(int, open("/proc/stat").readline().split()[1:9])
    return user + nice + system + irq + softirq + steal


def rounds(ours, peer, request, other, count):
    """Pairs of (seconds, FLOPs, peak) and seconds, and the share of the machine that others took."""
    sides = (ours, peer)
    began, used, own = time.perf_counter(), machine_ticks(), sum(side.ticks() for side in sides)
    pairs = [(ours.ask(request), peer.ask(other)[0]) for _ in range(count)]
    taken = machine_ticks() - used - (sum(side.ticks() for side in sides) - own)
    wall = (time.perf_counter() - began) * os.sysconf("SC_CLK_TCK") * os.cpu_count()
    return pairs, max(0.0, taken / wall)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="of: " + ", ".join(row[0] for row in ROWS))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--work", nargs="+", default=["training"], choices=["forward", "training"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048], help="lengths of the sequences")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tries", type=int, default=3, help="repetitions of a disturbed row, at most")
    parser.add_argument("--python", help="a Python that has the peers")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    d, batch = 512, arguments.batch
    ours = Side([build()], arguments.threads)
    peer = Side([arguments.python or peers_python(), pathlib.Path(__file__).with_name("peers.py")], arguments.threads)
    print(f"d {d}, batch {batch}, {arguments.threads} threads, training: forward + backward, "
          f"medians of {arguments.rounds} rounds")
    print(f"{'row':12} {'dtype':5} {'work':8} {'T':>6} {'ours tok/s':>11} {'peer tok/s':>11} {'ours µs/tok':>11} "
          f"{'peer µs/tok':>11} {'ratio':>6} {'target':>6} {'GFLOP/s':>8} {'of peak':>8}  peer")
    table = []
    for precision, work, (row, gene, name, *targets) in itertools.product(arguments.precision, arguments.work, ROWS):
        target = targets[precision == "bf16"]
        if target is None or (arguments.only and row not in arguments.only):
            continue
        for tokens in arguments.tokens:
            shape = f"{d} {tokens} {batch} {precision} {work}"
            best = None
            rounds(ours, peer, f"{gene} {shape}", f"{name} {shape}", 1)  # warms up
            for _ in range(arguments.tries):
                run = rounds(ours, peer, f"{gene} {shape}", f"{name} {shape}", arguments.rounds)
                if best is None or run[1] < best[1]:
                    best = run
                if best[1] <= 0.05:
                    break
            pairs, load = best
            seconds = statistics.median(own[0] for own, _ in pairs)
            peer_seconds = statistics.median(other for _, other in pairs)
            ratio = statistics.median(other / own[0] for own, other in pairs)
            flops, peak = pairs[0][0][1], max(own[2] for own, _ in pairs)
            table.append({
                "row": row, "precision": precision, "work": work, "tokens": tokens, "peer": name,
                "ours_tokens_per_second": batch * tokens / seconds,
                "peer_tokens_per_second": batch * tokens / peer_seconds, "ratio": ratio, "target": target,
                "flops": flops, "peak_flops_per_second": peak, "share_of_peak": flops / seconds / peak,
                "other_load": load})
            print(f"{row:12} {precision:5} {work:8} {tokens:6} "
                  f"{batch * tokens / seconds:11,.0f} {batch * tokens / peer_seconds:11,.0f} "
                  f"{1e6 * seconds / batch / tokens:11.2f} {1e6 * peer_seconds / batch / tokens:11.2f} "
                  f"{ratio:6.2f} {target:6.1f} {flops / seconds / 1e9:8.0f} {flops / seconds / peak:8.0%}"
                  f"{' ' if load <= 0.05 else '!'} {name}", flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
