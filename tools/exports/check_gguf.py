#!/usr/bin/env python3
"""Loads an exported GGUF file with llama.cpp and sets what it says beside what deltafront's own torch model says.

    check_gguf.py FILE.gguf=WEIGHTS … [--trainer target/debug/deltafront-train]

WEIGHTS is the model.safetensors of an `hf` export of the same weights, or the checkpoint itself. Prints a line of JSON for
each: the largest error of the logits, whether 64 greedy tokens are the same, the seconds that loading took. llama.cpp keeps
keys and values in half precision unless told otherwise; here it is told so. Needs llama-cpp-python, which builds from its
source package: `make llama-cpp` does, into the Python of `make peers`.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy
import torch
from llama_cpp import Llama

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from check import GREEDY, LENGTH, ours  # noqa: E402

# Of llama.cpp's own arithmetic, in fp32, relative to the largest logit.
TOLERANCE = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FILE=WEIGHTS")
    parser.add_argument("--trainer", default=str(pathlib.Path(__file__).parents[2] / "target/debug/deltafront-train"))
    args = parser.parse_args()
    fine = True
    for pair in args.pairs:
        file, weights = map(pathlib.Path, pair.split("="))
        tokens = torch.randint(0, 256, (1, LENGTH), generator=torch.Generator().manual_seed(7))
        expected, greedy = ours(args.trainer, weights, tokens, GREEDY)
        begin = time.time()
        model = Llama(str(file), n_ctx=512, n_batch=512, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0,
                      flash_attn=False)
        seconds = time.time() - begin
        model.eval(tokens[0].tolist())
        got = torch.tensor(numpy.array(model.scores[:LENGTH]))
        added = []
        for _ in range(GREEDY):
            added.append(int(model.scores[model.n_tokens - 1].argmax()))
            model.eval([added[-1]])
        row = {
            "file": str(file),
            "architecture": model.metadata["general.architecture"],
            "error": (got - expected[0]).abs().max().item(),
            "largest": expected.abs().max().item(),
            "greedy": added == greedy[0].tolist(),
            "load_s": round(seconds, 2),
        }
        if model.metadata.get("tokenizer.ggml.model") != "none":
            text = "My fellow citizens, “Ā” ü 漢 \n\t<s> 1"
            ids = model.tokenize(text.encode(), add_bos=False, special=False)
            row["tokenizer"] = ids == list(text.encode()) and model.detokenize(ids) == text.encode()
        row["ok"] = row["error"] <= TOLERANCE * row["largest"] and row.get("tokenizer", True)
        fine &= row["ok"]
        print(json.dumps(row), flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
