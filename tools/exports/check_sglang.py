#!/usr/bin/env python3
"""Serves exported folders (`--to sglang`) by SGLang on a CPU, and sets what it says beside what deltafront's own torch model says.

    check_sglang.py FOLDER=WEIGHTS … [--trainer target/debug/deltafront-train]

Wants SGLang 0.5.23 in this Python (docs/exports.md has how). SGLang's engine runs whole: its scheduler, its pools, its attention in
PyTorch (`torch_native`), our mixers. Prints a line of JSON for each: the largest error of the log-probabilities of all tokens at
all positions of two prompts, whether 64 greedy tokens of both, decoded together, are the same, whether they are when a prompt goes on
from a cached prefix, the seconds until the engine answered. Exit code 1: something differs.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import torch
from check import GREEDY, LENGTH, TOLERANCE, ours


def engine(folder):
    """SGLang, with everything of one process each."""
    os.environ.update(SGLANG_EXTERNAL_MODEL_PACKAGE="deltafront_sglang", SGLANG_USE_CPU_ENGINE="1", HF_HUB_OFFLINE="1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(folder))
    import sglang

    return sglang.Engine(
        model_path=str(folder), trust_remote_code=True, device="cpu", attention_backend="torch_native", dtype="float32",
        max_total_tokens=4096, max_running_requests=4, max_mamba_cache_size=16, context_length=1024, log_level="error")


def log_probabilities(meta, first, vocab):
    """Of all tokens after each of the prompt's from `first`, [T, vocab]."""
    rows = meta["input_top_logprobs"][first + 1:] + meta["output_top_logprobs"][:1]
    found = torch.full((len(rows), vocab), float("nan"))
    for row, given in zip(found, rows):
        for value, token, _ in given:
            row[token] = value
    return found


def check(folder, weights, trainer):
    """What there is to say of one folder."""
    config = json.loads((folder / "config.json").read_text())
    vocab = config["vocab_size"]
    tokens = torch.randint(0, min(vocab, 256), (2, LENGTH), generator=torch.Generator().manual_seed(7))
    expected, greedy = ours(trainer, weights, tokens, GREEDY)
    begin = time.time()
    served = engine(folder)
    try:
        ask = dict(sampling_params={"max_new_tokens": GREEDY, "temperature": 0, "ignore_eos": True}, return_logprob=True,
                   logprob_start_len=0, top_logprobs_num=vocab)
        answers = served.generate(input_ids=tokens.tolist(), **ask)
        seconds = time.time() - begin
        got = torch.stack([log_probabilities(answer["meta_info"], 0, vocab) for answer in answers])
        said = torch.tensor([answer["output_ids"] for answer in answers])
        # the first prompt again, longer: what was kept of it is gone on from
        half = GREEDY // 2
        longer = torch.cat([tokens, greedy[:, :half]], 1)[:1]
        ask = dict(sampling_params={"max_new_tokens": GREEDY - half, "temperature": 0, "ignore_eos": True})
        again = served.generate(input_ids=longer.tolist(), **ask)[0]
    finally:
        served.shutdown()
    row = {
        "folder": str(folder),
        "error": (got - expected.log_softmax(-1)).abs().max().item(),
        "largest": expected.abs().max().item(),
        "greedy": said.tolist() == greedy.tolist(),
        "cached": again["meta_info"]["cached_tokens"],
        "cached_greedy": again["output_ids"] == greedy[0, half:].tolist(),
        "load_s": round(seconds, 1),
    }
    row["ok"] = row["error"] <= TOLERANCE and row["greedy"] and row["cached_greedy"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FOLDER=WEIGHTS")
    parser.add_argument("--trainer", default=str(pathlib.Path(__file__).parents[2] / "target/debug/deltafront-train"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if len(args.pairs) > 1:  # a folder's package is imported once in a process
        script = [sys.executable, __file__, "--trainer", args.trainer]
        return max(os.spawnv(os.P_WAIT, sys.executable, [*script, pair]) for pair in args.pairs)
    folder, weights = (pathlib.Path(path).resolve() for path in args.pairs[0].split("="))
    row = check(folder, weights, args.trainer)
    print(json.dumps(row), flush=True)
    return 0 if row["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
