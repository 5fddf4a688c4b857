#!/usr/bin/env python3
"""Do short trainings put stacks in the order of long ones? One command for the answer:

    cargo build --release -p evaluator --example training_rules
    tools/truth_table/bench.py RUNS.jsonl --corpus FOLDER [--device cuda:0,cuda:1] [--seconds 450] [--workers 12] [--small]

trains 25 stacks of all mixers, ratios and depths short by the product's defaults (262 k, 1 M, 4 M tokens) and long (16.8 M
tokens), all at half, once and twice the base rate, adds every run to RUNS.jsonl, and prints which share of pairs the short
ones order as the long ones do. What RUNS.jsonl has already is not trained again, so on a lent GPU it is called until it says
that nothing is left; the short runs come first. --small is for a CPU: 11 stacks of width 64, long ones of 1 M tokens. --grid
trains every order of four mixers in 1 to 4 layers at two widths, 680 stacks, at four rungs: the runs that grid.py makes a
table of.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import plan
import run

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE.parent.parent / "target/release/examples/training_rules"


def find_torch():
    """Where a GPU's libraries are, for the trainer, as tools/gpu/run.sh has it."""
    torch, nvidia = importlib.util.find_spec("torch"), importlib.util.find_spec("nvidia")
    if torch is None:
        sys.exit("python3 finds no torch: install torch 2.11 for CUDA 13, or put its Python first in PATH")
    folders = [pathlib.Path(torch.origin).parent / "lib"]
    if nvidia is not None:
        cuda = pathlib.Path(next(iter(nvidia.submodule_search_locations))) / "cu13/lib"
        folders.append(cuda)
        os.environ.setdefault("DELTAFRONT_NVRTC", str(cuda))
    before = [os.environ["LD_LIBRARY_PATH"]] if "LD_LIBRARY_PATH" in os.environ else []
    os.environ["LD_LIBRARY_PATH"] = ":".join([*map(str, folders), *before])


def key(row):
    return row["stack"], row["tokens"], row["batch"], row["sequence_length"], f"{row['rate']:.6e}", row.get("seed", 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--program", default=str(PROGRAM))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--grid", action="store_true")
    arguments = parser.parse_args()
    if arguments.device != "cpu":
        find_torch()
    searches = plan.grid() if arguments.grid else plan.truth_small() if arguments.small else plan.truth()
    there = set()
    if arguments.out.exists():
        there = {key(row) for row in map(json.loads, arguments.out.read_text().splitlines()) if row["rule"] == plan.PRODUCT}
    left = [s for s in searches if key(s | {"rate": s["center"] * 2.0 ** s["first"][0]}) not in there]
    run.Pool(arguments, [run.Search(spec) for spec in left], {}).work()
    if not arguments.grid:
        subprocess.run([sys.executable, HERE / "pairs.py", arguments.out, "--rule", plan.PRODUCT], check=True)


if __name__ == "__main__":
    main()
