#!/usr/bin/env python3
"""A trainer of your own in PyTorch: `evaluator.command = "python3 pytorch_trainer.py"` in a campaign file.

It has each stack made into a PyTorch model by `deltafront export`, trains it on the bytes of the corpus, and says the loss on the end
of it. docs/protocol.md is what it speaks; `deltafront check-worker --command 'python3 pytorch_trainer.py'` tries it. It wants PyTorch
and transformers; DELTAFRONT names the program where it is not on the PATH.
"""

import json
import math
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time

import torch
from transformers import AutoModelForCausalLM

RATE, PARTS = 3e-3, 16


def say(message, **what):
    print(json.dumps({"type": message, **what}, allow_nan=False), flush=True)


def text(corpus, validation_fraction):
    """The bytes to train on and those to validate on."""
    corpus = pathlib.Path(corpus)
    files = sorted(corpus.rglob("*.txt")) if corpus.is_dir() else [corpus]
    data = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
    cut = int(len(data) * (1 - validation_fraction))
    return data[:cut], data[cut:]


def model_of(architecture, seed):
    """The stack as deltafront's training rule begins with it."""
    with tempfile.TemporaryDirectory() as folder:
        stack = pathlib.Path(folder, "stack.json")
        stack.write_text(json.dumps({"architecture": architecture}))
        hf = pathlib.Path(folder, f"stack_{time.monotonic_ns()}")
        program = os.environ.get("DELTAFRONT", "deltafront")
        command = [program, "export", stack, "--to", "hf", "--random", "--seed", str(seed % 2**32), "-o", hf]
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
        return AutoModelForCausalLM.from_pretrained(hf, trust_remote_code=True)


class Trainer:
    def __init__(self, settings, orders):
        self.orders, self.training = orders, settings["training"]
        self.checkpoints = settings.get("checkpoints")
        self.train, self.validation = text(settings["data"]["corpus"], settings["data"].get("validation_fraction", 0.1))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def batch(self, step, seed):
        """The windows of a step: the same ones for every stack of a seed."""
        length, rows = self.training["sequence_length"], self.training["batch"]
        chance = torch.Generator().manual_seed(seed * 1_000_003 + step)
        starts = torch.randint(len(self.train) - length, (rows,), generator=chance)
        return torch.stack([self.train[at:at + length] for at in starts.tolist()]).to(self.device)

    @torch.no_grad()
    def bits(self, model):
        """Bits per byte on equal parts of the held-out text."""
        length = self.training["sequence_length"]
        rows = min(len(self.validation), self.training.get("validation_tokens", 2**17)) // length // PARTS * PARTS
        windows = self.validation[:rows * length].reshape(PARTS, -1, length)
        return [model(part.to(self.device), labels=part.to(self.device)).loss.item() / math.log(2) for part in windows]

    def evaluate(self, id, architecture, tokens, seed, resume_from=None, **_):
        began, model = time.monotonic(), model_of(architecture, seed).to(self.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
        a_step = self.training["sequence_length"] * self.training["batch"]
        first, last, curve, said = 0, math.ceil(tokens / a_step), [], began
        if resume_from:
            before = torch.load(resume_from, map_location=self.device)
            model.load_state_dict(before["model"])
            optimizer.load_state_dict(before["optimizer"])
            first = before["steps"]
        for step in range(first, last):
            for group in optimizer.param_groups:  # a warm-up, then down to a tenth
                group["lr"] = RATE * min(1, (step + 1) / 20) * (0.1 + 0.9 * (1 - step / last))
            batch = self.batch(step, seed)
            loss = model(batch, labels=batch).loss
            if not loss.isfinite():
                return say("failed", id=id, reason=f"the loss is not finite at step {step}", kind="diverged")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if time.monotonic() - said > 0.5 or step + 1 == last:
                speed = a_step * (step + 1 - first) / (time.monotonic() - began)
                curve.append([(step + 1) * a_step, loss.item()])
                say("progress", id=id, step=step + 1, tokens=min((step + 1) * a_step, tokens), tokens_total=tokens,
                    loss=loss.item(), tokens_per_second=speed)
                said = time.monotonic()
            if not self.orders.empty() and self.orders.queue[0].get("type") == "stop":
                self.orders.get()
                return say("infeasible", id=id, reason="stopped")
        model.eval()
        parts = torch.tensor(self.bits(model))
        values = {"bits_per_byte": {"mean": parts.mean().item(), "standard_error": (parts.std() / PARTS**0.5).item()}}
        result = dict(values=values, parameters=sum(p.numel() for p in model.parameters()), tokens=last * a_step,
                      seconds=time.monotonic() - began, parts={"bits_per_byte": parts.tolist()}, curve=curve)
        if self.checkpoints:
            result["checkpoint"] = os.path.join(self.checkpoints, f"{id}.pt")  # no other request has this id
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "steps": last}, result["checkpoint"])
        say("result", id=id, **result)


def main():
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    say("hello", protocol=1, worker=f"pytorch_trainer, torch {torch.__version__}", can=["evaluate"], device=device)
    orders, trainer = queue.Queue(), None

    def listen():
        for line in sys.stdin:
            orders.put(json.loads(line))
        os._exit(0)  # the end of the input: leave at once, whatever is at work

    threading.Thread(target=listen, daemon=True).start()
    while True:
        order = orders.get()
        kind = order.pop("type")
        try:
            if kind == "configure":
                trainer = Trainer(order, orders)
                torch.set_num_threads(order["training"].get("threads") or torch.get_num_threads())
            elif kind == "evaluate":
                trainer.evaluate(**order)
            elif "id" in order and kind != "stop":
                say("failed", id=order["id"], reason=f"no {kind} here", kind="protocol")
        except Exception as error:  # everything that goes wrong costs this attempt only
            reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else repr(error)
            say("failed", id=order.get("id", 0), reason=reason)


if __name__ == "__main__":
    main()
