#!/usr/bin/env python3
"""Runs exports with flash-linear-attention's kernels on a GPU, beside the same without them, in at most 3 minutes.

    check_on_gpu.py --pack FOLDER [--programs target/release]   everything that a bare machine needs, about 35 MB
    FOLDER/check_on_gpu.py [RESULTS]          there: device.json, rows.jsonl, table.md into RESULTS (results)

There a Python with PyTorch 2.11 for CUDA 13, its Triton, transformers 5 and safetensors is enough; fla comes as wheels.
Stacks with random weights are exported `--to hf` and `--to fla`, and on_gpu.py asks each in a process of its own, several at once,
as most of the time is Triton's compiler; large stacks are timed one after the other when the others are done. Exit code 1: something differs.
"""

import argparse
import concurrent.futures
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SECONDS, AT_ONCE = 170, 20
WHEELS = ["fla-core==0.6.0", "flash-linear-attention==0.6.0", "einops==0.8.2"]
SCRIPTS = ["check_on_gpu.py", "on_gpu.py", "check.py"]
DEVICE = """
import importlib.metadata as m, json, sys, torch
names = {d.metadata["Name"]: d.version for d in m.distributions()}
wanted = ["torch", "triton", "transformers", "fla-core", "flash-linear-attention", "flash-attn", "tilelang"]
device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
print(json.dumps({"device": device, "python": sys.version.split()[0], **{name: names.get(name) for name in wanted}}))
"""
ATTENTION, WINDOW = "attn(h=4,kv=2,k=64)+ffn(512)", "swa(h=4,kv=2,k=64,w=100)+ffn(512)"
LARGE = "d=1024,vocab=32000,tied | "
# By what is asked: a name, the stack.
STACKS = {
    "fla": {
        "Gated DeltaNet, attention, window": f"d=256,vocab=256,tied | 2*gdn(h=4,k=64,v=128)+ffn(512) | {WINDOW} | {ATTENTION}",
        "Gated DeltaNet, grouped values, negative": "d=256,vocab=256 | 3*gdn(h=2,k=64,v=64,vg=2,neg)+ffn(512)",
        "DeltaNet, window": f"d=256,vocab=256,tied | 2*dn(h=4,k=64,v=64)+ffn(512) | {WINDOW}",
        "DeltaNet with gate, negative": "d=256,vocab=256 | 3*dn(h=4,k=64,v=64,gate,neg)+ffn(512)",
        "Gated DeltaProduct": "d=256,vocab=256,tied | 3*gdp(h=4,k=64,v=64,n=2)+ffn(512)",
        "DeltaProduct": "d=256,vocab=256,tied | 3*dp(h=4,k=64,v=64,n=3,neg)+ffn(512)",
    },
    "hf": {
        "Gated DeltaNet, attention": f"d=256,vocab=256,tied | 3*gdn(h=4,k=64,v=128)+ffn(512) | {ATTENTION}",
        "DeltaNet, window": f"d=256,vocab=256,tied | 3*dn(h=4,k=64,v=64)+ffn(512) | {WINDOW}",
        "Gated DeltaProduct, DeltaProduct": "d=256,vocab=256 | 2*gdp(h=4,k=64,v=64,n=2)+ffn(512) | 2*dp(h=4,k=64,v=64,n=3,neg)+ffn(512)",
        "Mamba2, attention": f"d=256,vocab=256,tied | 3*m2(h=8,p=64,n=128)+ffn(512) | {ATTENTION}",
        "Kimi Delta Attention, attention": f"d=256,vocab=256,tied | 3*kda(h=4,k=64,v=64)+ffn(512) | {ATTENTION}",
        "DeltaNet, Gated DeltaNet, Mamba2, window, meta tokens":
            f"d=256,vocab=256,meta=3 | dn(h=4,k=64,v=64) | gdn(h=2,k=64,v=128,vg=2,neg)+ffn(512) | m2(h=8,p=64,n=64)+relu2(512) | {WINDOW}",
        "Selective RoPE, log-linear": "d=256,vocab=256 | gdn(h=4,k=64,v=64,srope)+ffn(512) | lgdn(h=4,k=64,v=64,l=12)+ffn(512) | "
                                      "lm2(h=8,p=64,n=64,l=12)+ffn(512)",
        "parallel heads": "d=256,vocab=256,tied | par(h=4,kv=2,k=64,gdn,bh=4,bk=64,bv=64)+ffn(512) | par(h=4,kv=2,k=64,bh=8,bk=64,bv=64)+ffn(512)",
    },
    "scale": {
        "18 Gated DeltaNet, 6 attention": LARGE + " | ".join(6 * ["3*gdn(h=8,k=128,v=128)+ffn(2816) | attn(h=8,kv=4,k=128)+ffn(2816)"]),
        "12 DeltaNet, 12 windows": LARGE + " | ".join(12 * ["dn(h=8,k=128,v=128)+ffn(2816) | swa(h=8,kv=4,k=128,w=1024)+ffn(2816)"]),
        "18 Mamba2, 6 attention": LARGE + " | ".join(6 * ["3*m2(h=32,p=64,n=128)+ffn(2816) | attn(h=8,kv=4,k=128)+ffn(2816)"]),
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--pack", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--programs", type=pathlib.Path, default=HERE)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="of the stacks, those with one of these in `QUESTION name`")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    args = parser.parse_args()
    if args.pack:
        return pack(args.pack, args.programs)
    with tempfile.TemporaryDirectory() as scratch:
        args.end, args.scratch = time.time() + args.seconds, pathlib.Path(scratch)
        args.results.mkdir(parents=True, exist_ok=True)
        environment(args)
        rows = all_rows(args)
    (args.results / "table.md").write_text(table(rows))
    print(table(rows))
    return 1 if any(row["failed"] for row in rows) else 0


def all_rows(args):
    """Asks every stack; keeps what was answered as it comes."""
    asked = [(question, name, stack) for question, stacks in STACKS.items() for name, stack in stacks.items()
             if any(word in f"{question} {name}" for word in args.only)]
    args.quiet, args.turn, rows = threading.Event(), threading.Lock(), []
    with open(args.results / "rows.jsonl", "w") as file, concurrent.futures.ThreadPoolExecutor(args.at_once) as pool:
        jobs = {pool.submit(ask, number, *one, args): one[0] for number, one in enumerate(asked)}
        others = {job for job, question in jobs.items() if question != "scale"}
        threading.Thread(target=lambda: (concurrent.futures.wait(others), args.quiet.set())).start()
        for job in concurrent.futures.as_completed(jobs):
            answers = job.result()
            rows.extend(answers)
            file.writelines(json.dumps(row) + "\n" for row in answers)
            file.flush()
    return rows


def pack(folder, programs):
    """Programs without their symbols, fla's wheels, the scripts."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    for name in ("deltafront", "deltafront-train"):
        subprocess.run(["strip", "-o", folder / name, programs / name], check=True)
    for name in SCRIPTS:
        shutil.copy(HERE / name, folder / name)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder / "wheels", *WHEELS], check=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


def environment(args):
    """What our programs need of PyTorch and of CUDA, fla from its wheels where it is not installed, and what all of it is."""
    torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
    nvidia = importlib.util.find_spec("nvidia")
    cuda = [str(pathlib.Path(place) / "cu13/lib") for place in (nvidia.submodule_search_locations if nvidia else [])]
    os.environ |= {"LD_LIBRARY_PATH": ":".join([str(torch), *cuda]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    site = args.scratch / "site"
    if importlib.util.find_spec("fla") is None and (HERE / "wheels").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", site,
                        *(HERE / "wheels").glob("*.whl")], check=True)
        os.environ["PYTHONPATH"] = str(site)
    said = subprocess.run([sys.executable, "-c", DEVICE], capture_output=True, text=True, check=True).stdout
    (args.results / "device.json").write_text(said)


def ask(number, question, name, stack, args):
    """The answers of one stack. A process that is cut off leaves those that it had."""
    scratch = args.scratch / f"stack-{number}"
    scratch.mkdir()
    begin = time.time()
    head = {"question": question, "stack": name}
    words = [sys.executable, HERE / "on_gpu.py", question, scratch / "hf", "--device", args.device,
             "--trainer", args.programs / "deltafront-train"]
    for target in ("hf", "fla") if question == "fla" else ("hf",):
        exported = subprocess.run([args.programs / "deltafront", "export", stack, "--to", target, "--random", "--seed", "5", "--force",
                                   "-o", scratch / target], capture_output=True, text=True)
        if exported.returncode:
            return [head | {"part": "export", "failed": [exported.stderr.strip()]}]
    if question == "fla":
        words += ["--theirs", scratch / "fla"]
    # modules of folders are copied there: one place for each process
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "HF_HOME": str(scratch / "huggingface")}) as process:
        if question == "scale":
            args.quiet.wait(max(args.end - time.time(), 1))
        with args.turn if question == "scale" else contextlib.nullcontext():
            try:
                said, errors = process.communicate("go\n", timeout=max(args.end - time.time(), 1))
            except subprocess.TimeoutExpired:
                process.kill()
                said, errors = process.communicate()
                errors += "\ncut off: no time left"
    answers = [head | json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if process.returncode:
        answers.append(head | {"part": "end", "failed": errors.strip().splitlines()[-3:]})
    shutil.rmtree(scratch)
    answers[-1]["seconds"] = round(time.time() - begin, 1)
    return answers


def table(rows):
    """All rows in Markdown, one for each stack and part."""
    lines = ["| asked | stack | part | plain bf16 | kernels, fp32 | kernels, bf16 | else | failed |", "|---|---|---|---|---|---|---|---|"]
    forms = ("plain_bf16", "kernels_fp32", "kernels_bf16")

    def number(value):
        return f"{value:.2g}" if isinstance(value, float) else "" if value is None else json.dumps(value)

    for row in rows:
        rest = {key: value for key, value in row.items() if key not in (*forms, "question", "stack", "part", "failed")}
        else_ = ", ".join(f"{key} {number(value)}" for key, value in rest.items())
        cells = [row["question"], row["stack"], row["part"], *(number(row.get(form)) for form in forms), else_, "; ".join(row["failed"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
