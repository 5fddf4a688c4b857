#!/usr/bin/env python3
"""Trains the model of this folder by deltafront's rule, as the proxy was trained: one base rate for every stack.

    python train.py --corpus TEXT --output FOLDER

TEXT is a text file, a folder of .txt files or a .jsonl with a field "text". Settings are those of training.json unless
given here. The same weights, corpus and seed see the same batches as deltafront's own trainer.

The rule: every matrix moves by Muon, in blocks of 64 units, as far as AdamW would; all else by AdamW. Rates fall with the
width and the depth of the stack; the base rate rises, falls with the fourth root of the tokens and decays at the end.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent

# --- The rule -----------------------------------------------------------------------------------------------------------

BLOCK, STEPS, COEFFICIENTS = 64, 3, (3.4445, -4.7750, 2.0315)
MOMENTUM, UPDATE_RMS, EPSILON = 0.95, 0.2, 1e-8
REFERENCE_WIDTH, REFERENCE_BRANCHES = 256, 12
BALANCE = 0.01  # added to the loss, times how unevenly experts are used


def orthogonalised(x, of_columns):
    """x [r, c] in blocks of 64 rows (or columns), each brought near the closest one with orthonormal rows or columns by
    Newton and Schulz, to a root mean square of 1; of a mixture of experts [E, r, c] each expert by itself."""
    if x.dim() == 3:
        return torch.stack([orthogonalised(matrix, of_columns) for matrix in x])
    if of_columns:
        return orthogonalised(x.T, False).T
    a, b, c = COEFFICIENTS
    blocks = []
    for block in x.split(BLOCK):
        y = block / block.norm().clamp_min(1e-30)
        tall = y.shape[0] > y.shape[1]
        y = y.T if tall else y
        for _ in range(STEPS):
            gram = y @ y.T
            y = a * y + (b * gram + c * gram @ gram) @ y
        blocks.append((y.T if tall else y) * math.sqrt(max(block.shape)))
    return torch.cat(blocks)


class Optimizer:
    """Muon for matrices between others, AdamW for the rest, each tensor at its part of the base rate."""

    def __init__(self, model, training):
        self.training, self.updates, self.tensors = training, 0, []
        width, branches = model.config.hidden_size, max(model.config.branches, 1)
        of_stack = math.sqrt(REFERENCE_WIDTH / width * REFERENCE_BRANCHES / branches)
        decay = 0.0 if training["weight_normalisation"] else training["weight_decay"]
        seen = set()
        for module in model.modules():
            role = getattr(module, "role", None)
            for name, tensor in module.named_parameters(recurse=False):
                if id(tensor) in seen:  # the head of a tied model is its embedding
                    continue
                seen.add(id(tensor))
                muon = role in ("reader", "writer", "inner")
                is_embedding = isinstance(module, torch.nn.Embedding) or name == "meta"
                if muon:
                    rate, of = of_stack * math.sqrt(REFERENCE_WIDTH / tensor.shape[-1]), decay
                elif is_embedding or role == "head":
                    rate = of_stack * math.sqrt(REFERENCE_WIDTH / width)
                    of = 0.0 if is_embedding and not training["decay_embeddings"] else decay
                else:
                    rate, of = of_stack * 0.5, 0.0
                zeros = [torch.zeros_like(tensor, dtype=torch.float32) for _ in range(1 if muon else 2)]
                self.tensors.append((tensor, role, muon, rate, of, zeros))

    @torch.no_grad()
    def step(self, base):
        """One update at a base rate."""
        norm = torch.sqrt(sum(tensor.grad.float().square().sum() for tensor, *_ in self.tensors)).item()
        if not math.isfinite(norm):
            raise SystemExit("the gradient is not finite")
        clip = min(1.0, self.training["gradient_clip"] / norm) if norm > 0 else 1.0
        self.updates += 1
        beta1, beta2 = self.training["beta1"], self.training["beta2"]
        for tensor, role, muon, rate, decay, moments in self.tensors:
            gradient, rate = tensor.grad.float() * clip, rate * base
            if muon:
                moments[0].lerp_(gradient, 1 - MOMENTUM)
                step = orthogonalised(gradient.lerp(moments[0], MOMENTUM), role == "writer")
                tensor.mul_(1 - rate * decay).add_(step.to(tensor.dtype), alpha=-rate * UPDATE_RMS)
                continue
            first, second = moments
            first.lerp_(gradient, 1 - beta1)
            second.lerp_(gradient.square(), 1 - beta2)
            bias1, bias2 = 1 - beta1**self.updates, 1 - beta2**self.updates
            step = first / bias1 / ((second / bias2).sqrt() + EPSILON)
            tensor.sub_((rate * (step + decay * tensor)).to(tensor.dtype))
        if self.training["weight_normalisation"]:
            for tensor, role, *_ in self.tensors:
                if role in ("reader", "writer"):
                    tensor.div_(tensor.norm(dim=-1 if role == "reader" else -2, keepdim=True).clamp_min(1e-30))


class Schedule:
    """A linear rise, a fall with the fourth root of the tokens, a linear decay over the last part."""

    def __init__(self, training):
        self.per_step = training["batch"] * training["sequence_length"]
        self.steps = max(1, math.ceil(training["tokens"] / self.per_step))
        rate = training["learning_rate"]
        if rate == "auto":
            rate = 1.414e-3 * math.sqrt(self.per_step / 2048) * (max(training["tokens"], 1) / 2**20) ** -0.25
        self.rate = rate
        warmup = training.get("warmup_tokens") or training["tokens"] * training["warmup_fraction"]
        self.warmup = max(1.0, math.floor(warmup / self.per_step + 0.5))
        self.decaying = min(math.floor(self.steps * training["decay_fraction"] + 0.5), self.steps)
        self.last = training["final_learning_rate_fraction"]

    def __call__(self, step):
        position = step + 1
        slow = (max(position, self.warmup) / self.steps) ** -0.25
        begin = self.steps - self.decaying
        decayed = max(min(step, self.steps) - begin, 0) / max(self.decaying, 1)
        return self.rate * min(position / self.warmup, 1.0) * slow * (1 - decayed * (1 - self.last))


# --- The text -----------------------------------------------------------------------------------------------------------


def documents(path):
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        texts = [file.read_text(encoding="utf-8-sig") for file in files]
    elif path.suffix in (".jsonl", ".ndjson"):
        texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        texts = [path.read_text(encoding="utf-8-sig")]
    return [text for text in texts if text]


def split(texts, fraction):
    """Holds out whole documents, spread evenly, or the tail where there are few. Copies are left out."""
    first = {}
    for text in texts:
        first.setdefault(text.strip(), text if text.endswith("\n") else text + "\n")
    texts = list(first.values())
    if len(texts) * min(fraction, 1 - fraction) < 4:
        whole = "".join(texts).encode()
        cut = math.floor(len(whole) * (1 - fraction) + 0.5)
        while cut < len(whole) and whole[cut] & 0xC0 == 0x80:
            cut += 1
        return whole[:cut].decode(), whole[cut:].decode()
    parts, total, held_out = ([], []), 0, 0
    for text in texts:
        size = len(text.encode())
        total += size
        out = held_out + size / 2 <= fraction * total
        held_out += size if out else 0
        parts[out].append(text)
    return "".join(parts[0]), "".join(parts[1])


def tokens(text):
    """Ids [n], by the tokenizer of this folder; bytes where it is the one of bytes."""
    config = json.loads((HERE / "tokenizer_config.json").read_text())
    if config.get("pad_token") == "<0x00>":
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.no_padding(), tokenizer.no_truncation()
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int32)


MASK = 2**64 - 1


def mix(x):
    """The finaliser of SplitMix64."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


class Sampler:
    """Windows that do not overlap, in a random order; each epoch cuts them at another offset."""

    def __init__(self, seed, count, length):
        if count <= length:
            raise SystemExit(f"the text has {count} tokens to train on, too few for a sequence of {length}")
        self.seed, self.count, self.length = seed, count, length
        self.windows = max(1, (count - length) // length)

    def start(self, index):
        epoch, place = divmod(index, self.windows)
        key = mix(self.seed ^ mix(epoch))
        last = min(self.count - 1 - self.windows * self.length, self.length - 1)
        return mix(key) % (last + 1) + self.permuted(place, key) * self.length

    def permuted(self, x, key):
        half = max(1, -(-(self.windows - 1).bit_length() // 2))
        mask = (1 << half) - 1
        while True:
            left, right = x >> half, x & mask
            for turn in range(6):
                left, right = right, left ^ (mix(key ^ mix(right ^ (turn << 56))) & mask)
            x = left << half | right
            if x < self.windows:
                return x


# --- The training -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(model, ids, training, device):
    """Mean loss in nats a token on the windows that deltafront validates on, and its standard error."""
    length = training["sequence_length"]
    available = -(-((len(ids) - 1) // length) // 2)
    wanted = min(max(-(-training["validation_tokens"] // length), 1), available)
    losses = []
    for i in range(wanted):
        start = 2 * (i * available // wanted) * length
        window = ids[start:start + length + 1].long().to(device)[None]
        logits = model(window[:, :-1], use_cache=False).logits.float()
        losses.append(F.cross_entropy(logits[0], window[0, 1:]).item())
    mean = sum(losses) / len(losses)
    variance = sum((x - mean) ** 2 for x in losses) / max(len(losses) - 1, 1)
    return mean, math.sqrt(variance / len(losses))


def main():
    settings = json.loads((HERE / "training.json").read_text())
    training = settings["training"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, help="where the trained model is saved")
    parser.add_argument("--from-config", action="store_true", help="begin from fresh weights, not those of this folder")
    parser.add_argument("--seed", type=int, default=settings["seed"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16")
    parser.add_argument("--curve", type=pathlib.Path, help="a file for the loss of each step, a line of JSON each")
    for name in ("tokens", "batch", "sequence_length", "validation_tokens"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=training[name])
    parser.add_argument("--learning-rate", default=training["learning_rate"], type=lambda x: x if x == "auto" else float(x))
    args = parser.parse_args()
    for name in ("tokens", "batch", "sequence_length", "validation_tokens", "learning_rate"):
        training[name] = getattr(args, name)

    torch.manual_seed(args.seed)
    if args.from_config:
        config = AutoConfig.from_pretrained(HERE, trust_remote_code=True)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    else:
        model = AutoModelForCausalLM.from_pretrained(HERE, trust_remote_code=True, dtype=torch.float32)
    model.to(args.device).train()
    train, held_out = (tokens(text) for text in split(documents(args.corpus), settings["validation_fraction"]))
    sampler = Sampler(args.seed, len(train), args.sequence_length)
    optimizer, rate = Optimizer(model, training), Schedule(training)
    curve = open(args.curve, "w") if args.curve else None
    begin, shown = time.time(), []
    for step in range(rate.steps):
        starts = [sampler.start(step * args.batch + i) for i in range(args.batch)]
        windows = torch.stack([train[start:start + args.sequence_length + 1] for start in starts]).long().to(args.device)
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
            out = model(windows[:, :-1], use_cache=False)
        loss = F.cross_entropy(out.logits.float().flatten(0, 1), windows[:, 1:].flatten())
        model.zero_grad()
        (loss if out.balance is None else loss + BALANCE * out.balance).backward()
        optimizer.step(rate(step))
        shown.append(loss.item())
        if curve:
            print(json.dumps({"tokens": (step + 1) * rate.per_step, "loss": shown[-1]}), file=curve, flush=True)
        if (step + 1) % max(1, rate.steps // 20) == 0:
            recent = sum(shown[-16:]) / len(shown[-16:])
            seen = (step + 1) * rate.per_step
            print(f"{seen:>12,} tokens  loss {recent:.4f}  {seen / (time.time() - begin):,.0f} tokens/s", file=sys.stderr)
    model.eval()
    loss, error = validate(model, held_out, training, args.device)
    print(json.dumps({"validation_loss": loss, "standard_error": error, "steps": rate.steps}))
    if args.output:
        model.save_pretrained(args.output)
        for name in ("tokenizer.json", "tokenizer_config.json", "train.py", "training.json", "stack.json"):
            if (HERE / name).exists():
                (args.output / name).write_bytes((HERE / name).read_bytes())


if __name__ == "__main__":
    main()
