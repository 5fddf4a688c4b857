"""What check_fla.py, check_lm_engine.py and check_nemotron_flash.py have in common: models whose kernels want a GPU, on a CPU
by plain forms of their ops, whole sequences only."""

import argparse
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "operators/goldens/shim"), str(ROOT / "operators/goldens"), str(ROOT / "tools/exports")]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from check import LENGTH, TOLERANCE, ours  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

ATTENTION = F.scaled_dot_product_attention  # another may come in its place


def flash_attention(q, k, v, *_, causal=True, window_size=(-1, -1), **__):
    """[B, T, H, K], as flash_attn_func has it."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    at = torch.arange(q.shape[2])
    seen = at[None] <= at[:, None]
    if window_size[0] >= 0:
        seen &= at[None] >= at[:, None] - window_size[0]
    return ATTENTION(q, k, v, attn_mask=seen).transpose(1, 2)


@torch.no_grad()
def main(description, model_of, logits_of, arguments=()):
    """Compares each FOLDER=WEIGHTS. `model_of(folder, config, args)` is a model without weights, `logits_of(model, tokens)` what
    it says; a tied head has no tensor of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FOLDER=WEIGHTS")
    parser.add_argument("--trainer", default=str(ROOT / "target/debug/deltafront-train"))
    for name, about in arguments:
        parser.add_argument(name, required=True, help=about)
    args = parser.parse_args()
    torch.set_num_threads(1)
    fine = True
    for pair in args.pairs:
        folder, weights = map(pathlib.Path, pair.split("="))
        config = json.loads((folder / "config.json").read_text())
        begin = time.time()
        model = model_of(folder, config, args).eval()
        theirs, wanted = load_file(folder / "model.safetensors"), set(model.state_dict())
        if config["tie_word_embeddings"]:
            wanted.discard("lm_head.weight")
        model.load_state_dict(theirs, strict=False)
        seconds = time.time() - begin
        tokens = torch.randint(0, min(config["vocab_size"], 256), (2, LENGTH), generator=torch.Generator().manual_seed(7))
        expected, _ = ours(args.trainer, weights, tokens, 0)
        got = logits_of(model, tokens).float()
        row = {"folder": str(folder), "model": config["model_type"], "error": (got - expected).abs().max().item(),
               "largest": expected.abs().max().item(), "load_s": round(seconds, 2), "missing": sorted(wanted ^ set(theirs))}
        row["ok"] = row["error"] <= TOLERANCE and not row["missing"]
        fine &= row["ok"]
        print(json.dumps(row), flush=True)
    sys.exit(0 if fine else 1)
