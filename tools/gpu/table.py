"""One table of the results of `run.sh`: each kernel's time, bytes and FLOPs, its share of the bandwidth of a copy and of a
cuBLAS product in the same run, the floor by an H100's data sheet, and the peer's time beside it.

    python3 table.py RESULTS
"""

import json
import pathlib
import sys

# an H100 by its data sheet: HBM3, dense bf16 products
TB_PER_S, TFLOP_PER_S = 3.35, 990

# a row of ours, and the row of the peers that does the same work
PEERS = {
    "decode Nemotron-Flash-1B, 8k cached": "PyTorch + fla decode Nemotron-Flash-1B, 8k cached",
    "prefill gated delta rule 1x8192": "fla prefill gated delta rule 1x8192",
    "prefill delta rule 1x8192": "fla prefill delta rule 1x8192",
    "prefill linear attention 1x8192": "fla prefill linear attention 1x8192",
    "prefill gated delta rule 1x32768": "fla prefill gated delta rule 1x32768",
    **{
        f"{kind} attention {shape}": f"SDPA {kind} {shape}"
        for kind, shapes in {
            "prefill": ["1x8192, 16 heads of 128", "1x8192, 16 heads of 128 over 4", "1x8192, 32 heads of 64",
                        "4x4096, 16 heads of 128", "1x32768, 16 heads of 128", "1x1024, 16 heads of 128"],
            "step": ["32 x 8192, 16 heads of 128 over 4", "32 x 2048, 16 heads of 128 over 16"],
        }.items()
        for shape in shapes
    },
    "layer Gated DeltaNet 4x4096": "SDPA layer 4x4096",
    "layer Mamba2 4x4096": "SDPA layer 4x4096",
    "layer DeltaNet 4x4096": "SDPA layer 4x4096",
    "layer Gated DeltaNet 1x32768": "SDPA layer 1x32768",
    "layer Mamba2 1x32768": "SDPA layer 1x32768",
    "layer DeltaNet 1x32768": "SDPA layer 1x32768",
}


def rows(path):
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{")]


def ours(results):
    """Name, milliseconds, GB, GFLOP."""
    for row in rows(results / "kernels.jsonl"):
        if "floor_ms" in row:
            yield row["name"], row["ms_back_to_back"], row["GB"], None
    for row in rows(results / "chunked.jsonl"):
        if "GB" in row:
            yield row["name"], row["ms"], row["GB"], row.get("GFLOP")
    for row in rows(results / "training.jsonl"):
        if row.get("d") == 2048:
            kind = {"BFloat16": "", "Float": " fp32"}[row["kind"]]
            yield f"layer {row['layer']} {row['B']}x{row['T']}{kind}", row["ms"], None, None


def main():
    results = pathlib.Path(sys.argv[1])
    peers = {row["name"]: row for row in rows(results / "peers.jsonl")}
    copy = next((row["GB_per_s"] for row in rows(results / "kernels.jsonl") if row["name"] == "copy"), None)
    product = next((row["TFLOP_per_s"] for name, row in peers.items() if "8192³" in name), None)
    print(f"copy {copy} GB/s, cuBLAS {product} TFLOP/s\n")
    print("| work | ms | floor, ms | GB | share of copy | GFLOP | share of cuBLAS | peer, ms | peer / ours |")
    print("|---|---|---|---|---|---|---|---|---|")

    def cell(value, form):
        return "" if value is None else format(value, form)

    for name, ms, gigabytes, gigaflops in ours(results):
        peer = peers.get(PEERS.get(name), {}).get("ms")
        cells = [
            name,
            cell(ms, ".4g"),
            cell(gigabytes and max(gigabytes / TB_PER_S, (gigaflops or 0) / TFLOP_PER_S), ".3g"),
            cell(gigabytes, ".3g"),
            cell(gigabytes and copy and gigabytes / ms * 1e3 / copy, ".0%"),
            cell(gigaflops, ".3g"),
            cell(gigaflops and product and gigaflops / ms / product, ".0%"),
            cell(peer, ".4g"),
            cell(peer and peer / ms, ".2f"),
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
