#!/usr/bin/env python3
"""What a coordinator sustains: bench.py DELTAFRONT [--workers 8,64,1000] [--seconds 60] [--rungs]

A real `deltafront run --listen --only-workers` over the loopback, and as many pull workers as asked for, all in this process: each
trains nothing and answers at once, with a loss, a curve and the losses of 64 parts of a text made up of the stack; one more says what
parts and models take. Said are
evaluations a second, what the coordinator's process took of a core and of memory, and how the database grew. `--pause S` lets every
worker take so long; `--begun` measures it where a campaign has come to.
"""

import argparse
import asyncio
import hashlib
import json
import math
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

CAMPAIGN = """
name = "crowd"
[space]
d_model = [256, 384, 512, 768]
depth = {{ min = 4, max = 24 }}
ffn = ["none", "1x", "2x", "3x"]
[space.mixers.attn]
head_width = [32, 64]
[space.mixers.swa]
head_width = [32, 64]
window = [64, 128, 256]
[space.mixers.gdn]
key_width = [32, 64]
[space.mixers.m2]
head_width = [32, 64]
state_width = [64, 128]
[data]
corpus = "{corpus}"
[training]
tokens = 16_777_216
[search]
evaluations = 1_000_000
start = 64
references = []
{rungs}
"""
VERSION = 2
CAN = {"trainer": ["evaluate"], "profiler": ["measure", "measure_whole"]}
PARTS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deltafront", type=pathlib.Path)
    parser.add_argument("--workers", default="8,64,1000")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=0, help="seconds that a worker takes for an evaluation")
    parser.add_argument("--rungs", action="store_true")
    parser.add_argument("--begun", type=pathlib.Path, nargs=2, metavar=("FILE", "DB"), help="go on with a copy of this campaign instead")
    parser.add_argument("--device", default="cpu: crowd", help="that it was timed on")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print("| workers | s | evaluations | a second | coordinator's core, % | its memory, MB | database, bytes each |\n|---|---|---|---|---|---|---|")
    for count in map(int, options.workers.split(",")):
        print(asyncio.run(campaign(options, count)), flush=True)


async def campaign(options, count: int) -> str:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="crowd-"))
    try:
        (folder / "corpus.txt").write_text("What a crowd says of a text that nobody reads.\n" * 20_000)
        rungs = "rungs = [262_144, 2_097_152]" if options.rungs else ""
        file = folder / "campaign.toml"
        file.write_text(CAMPAIGN.format(corpus=folder / "corpus.txt", rungs=rungs))
        if options.begun:
            file, known = (path.resolve() for path in options.begun)
            shutil.copy(known, folder / "crowd.db")
        log = open(folder / "log", "w+")
        command = [options.deltafront.resolve(), "--db", folder / "crowd.db", "run", "--plain", "--listen", "127.0.0.1:0"]
        coordinator = subprocess.Popen([*command, "--only-workers", "--workers-time", "--without-tls", file], stdout=log, stderr=log)
        address, secret = await invitation(folder / "log", coordinator)
        crowd = Crowd(options.pause, options.device)
        roles = ["profiler"] + count * ["trainer"]
        tasks = [asyncio.create_task(crowd.worker(address, secret, place, role)) for place, role in enumerate(roles)]
        for _ in range(600):
            await asyncio.sleep(0.1)
            if crowd.answered or coordinator.poll() is not None:
                break
        begin, before, spent = time.time(), crowd.answered, seconds(coordinator.pid)
        bytes_before = size(folder)
        while time.time() < begin + options.seconds and coordinator.poll() is None:
            await asyncio.sleep(0.2)
        took, answered = time.time() - begin, crowd.answered - before
        if coordinator.poll() is None:
            core, memory = 100 * (seconds(coordinator.pid) - spent) / took, peak(coordinator.pid)
            each = (size(folder) - bytes_before) / max(answered, 1)
            coordinator.send_signal(signal.SIGINT)
            await asyncio.sleep(2)
            coordinator.kill()
        else:
            raise SystemExit(f"it ended with {coordinator.returncode}: {(folder / 'log').read_text()[-2000:]}")
        for task in tasks:
            task.cancel()
        return f"| {count} | {took:.0f} | {answered} | {answered / took:.1f} | {core:.0f} | {memory:.0f} | {each:.0f} |"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Crowd:
    """Workers that answer at once, or after a pause."""

    def __init__(self, pause: float, device: str) -> None:
        self.answered, self.pause, self.device = 0, pause, device

    async def worker(self, address, secret: str, place: int, role: str) -> None:
        reader, writer = await asyncio.open_connection(*address)
        say(writer, {"version": VERSION, "secret": secret, "worker": f"crowd-{place}", "host": "here", "role": role})
        async for message in heard(reader):
            match message:
                case {"Welcome": {"configure": {"training": training}}}:
                    precision = "fp32" if training and training["precision"] == "auto" else None
                    hello = {"protocol": 1, "worker": "crowd 1", "can": CAN[role], "device": self.device, "kernels": "crowd 1"}
                    say(writer, {"Ready": {"hello": hello, "shares": True, "gpu": None, "precision": precision, "holds": None}})
                case {"Order": {"type": "evaluate", **request}}:
                    if self.pause:
                        await asyncio.sleep(self.pause * random.uniform(0.5, 1.5))
                    say(writer, {"News": {"Reply": evaluated(request)}})
                    self.answered += 1
                case {"Order": {"type": "measure" | "measure_whole" | "measure_limit", **request}}:
                    say(writer, {"News": {"Reply": timed(request)}})
                case {"Order": {"type": "check", "id": id}}:
                    say(writer, {"News": {"Reply": {"type": "checked", "id": id}}})
                case "Alive":
                    say(writer, "Alive")
                case "Farewell" | {"Refused": _}:
                    return
            await writer.drain()


def evaluated(request) -> dict:
    text = json.dumps(request["architecture"], sort_keys=True)
    chance = random.Random(hashlib.blake2b(text.encode()).digest())
    layers, tokens = request["architecture"]["layers"], request["tokens"]
    loss = 3.5 - 0.1 * math.log2(request["architecture"]["d_model"] * len(layers)) - 0.05 * math.log2(tokens / 1e6) + chance.gauss(0, 0.05)
    parts = [loss + chance.gauss(0, 0.1) for _ in range(PARTS)]
    return {
        "type": "result", "id": request["id"], "parameters": 1_000_000, "tokens": tokens, "seconds": 60.0,
        "values": {"bits_per_byte": {"mean": loss, "standard_error": 0.01}},
        "curve": [[tokens * step // 128, loss + 1.5 * (1 - step / 128)] for step in range(1, 129)],
        "parts": {"bits_per_byte": parts},
    }


def timed(request) -> dict:
    """As if a layer took as long as it is wide, a model as many."""
    layers = len(request.get("architecture", {}).get("layers", [1]))
    us = 0.02 * layers * request.get("architecture", request).get("d_model", 1000)
    return {"type": "timing", "id": request["id"], "median_us": us, "spread_us": 0.01 * us, "samples": 100, "other_load": 0.0, "kernels": "crowd 1"}


def say(writer, message) -> None:
    body = json.dumps({"message": message}).encode()
    writer.write(struct.pack(">I", len(body)) + body)


async def heard(reader):
    try:
        while True:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            yield json.loads(await reader.readexactly(length))["message"]
    except (asyncio.IncompleteReadError, ConnectionError):
        return


async def invitation(log: pathlib.Path, coordinator):
    """Where it listens, and its secret."""
    while coordinator.poll() is None:
        text = log.read_text()
        found = re.search(r"--connect \S*?:(\d+) --token (\w+)\.", text)
        if found:
            return ("127.0.0.1", int(found.group(1))), found.group(2)
        await asyncio.sleep(0.1)
    raise SystemExit(f"no token: {log.read_text()[-2000:]}")


def seconds(pid: int) -> float:
    """Of a core, that a process took."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1e3


def size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("crowd.db*"))


if __name__ == "__main__":
    main()
