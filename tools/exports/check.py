#!/usr/bin/env python3
"""Loads an exported folder with transformers and sets what it says beside what deltafront's own torch model says.

    check.py FOLDER=WEIGHTS … [--trainer target/debug/deltafront-train]

WEIGHTS is the checkpoint that was exported, or the model.safetensors of an `hf` export of the same weights. Prints a line of
JSON for each: the largest error of the logits, whether 64 greedy tokens are the same, alone and in a batch with padding before the
shorter one, whether a loss has gradients, the seconds that loading took. Exit code 1: something differs.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE, LENGTH, GREEDY = 1e-4, 150, 64


def ours(trainer, weights, tokens, greedy):
    """Logits [B, T, vocab] and greedy tokens of deltafront's model."""
    question = {"tokens": tokens.tolist(), "greedy": greedy}
    if weights.name == "model.safetensors":
        question["stack"] = json.loads((weights.parent / "stack.json").read_text())["architecture"]
        config = json.loads((weights.parent / "config.json").read_text())
        question["divided"] = config.get("logits_divided_by_head_norms", False)
    answer = subprocess.run([trainer, "--logits", weights], input=json.dumps(question), text=True,
                            check=True, stdout=subprocess.PIPE).stdout
    answer = json.loads(answer)
    return torch.tensor(answer["logits"]), torch.tensor(answer["greedy"])


def same_text(folder):
    """Whether the tokenizer gives bytes back as they were."""
    if json.loads((folder / "tokenizer_config.json").read_text()).get("pad_token") != "<0x00>":
        return True
    tokenizer, text = AutoTokenizer.from_pretrained(folder, trust_remote_code=True), "My fellow citizens, “Ā” ü 漢 \n\t<s> 1"
    ids = tokenizer(text)["input_ids"]
    batch = tokenizer([text, "a"], padding=True, return_tensors="pt")
    left = batch["attention_mask"][1].tolist() == [0] * (len(ids) - 1) + [1]
    return ids == list(text.encode()) and tokenizer.decode(ids) == text and left


@torch.no_grad()
def check(folder, weights, trainer):
    """What there is to say of one folder."""
    config = json.loads((folder / "config.json").read_text())
    begin = time.time()
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code="auto_map" in config, dtype=torch.float32, output_loading_info=True)
    seconds = time.time() - begin
    model.eval()
    tokens = torch.randint(0, min(config["vocab_size"], 256), (2, LENGTH), generator=torch.Generator().manual_seed(7))
    expected, greedy = ours(trainer, weights, tokens, GREEDY)
    got = model(tokens).logits.float()
    generate = dict(max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False, pad_token_id=0, eos_token_id=None)
    row = {
        "model": config["model_type"],
        "transformers": transformers.__version__,
        "error": (got - expected).abs().max().item(),
        "largest": expected.abs().max().item(),
        "greedy": bool((model.generate(tokens, attention_mask=torch.ones_like(tokens), **generate)[:, LENGTH:] == greedy).all()),
        "load_s": round(seconds, 2),
        "missing": sorted(loading["missing_keys"]) + sorted(loading["unexpected_keys"]),
    }
    # the first row shorter than the second, with padding before it
    cut = 61
    padded, mask = tokens.clone(), torch.ones_like(tokens)
    padded[0, :cut], mask[0, :cut] = 0, 0
    short, short_greedy = ours(trainer, weights, tokens[:1, cut:], GREEDY)
    batch = model(padded, attention_mask=mask).logits.float()
    row["padded_error"] = max((batch[0, cut:] - short[0]).abs().max().item(), (batch[1] - expected[1]).abs().max().item())
    added = model.generate(padded, attention_mask=mask, **generate)[:, LENGTH:]
    row["padded_greedy"] = bool((added[0] == short_greedy[0]).all() and (added[1] == greedy[1]).all())
    with torch.enable_grad():
        model.train()
        model(tokens, labels=tokens).loss.backward()
        row["trains"] = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    row["tokenizer"] = same_text(folder) if (folder / "tokenizer_config.json").exists() else None
    row["ok"] = (max(row["error"], row["padded_error"]) <= TOLERANCE and row["greedy"] and row["padded_greedy"]
                 and row["trains"] and row["tokenizer"] is not False and not row["missing"])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FOLDER=WEIGHTS")
    parser.add_argument("--trainer", default=str(pathlib.Path(__file__).parents[2] / "target/debug/deltafront-train"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    rows = []
    for pair in args.pairs:
        folder, weights = map(pathlib.Path, pair.split("="))
        rows.append({"folder": str(folder), **check(folder, weights, args.trainer)})
        print(json.dumps(rows[-1]), flush=True)
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
