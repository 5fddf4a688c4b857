#!/usr/bin/env python3
"""One campaign over all GPUs of a machine, in at most 8 minutes: several.py [RESULTS]

Beside it lie our programs and a text, as `bundle.py` packs them. Every part is a campaign of its own:

    each     the first GPU is timed, the others train
    parts    random stacks, hardly trained: what is to be timed of them
    rate-1   the same stacks by pull workers on the last GPU alone, and models timed on the first beside it, then in quiet
    rate-n   the same by workers on every GPU
    killed   the same, a worker killed at random every few seconds
    pull     the campaign of `each`, trained by pull workers over the loopback
    one      the same with everything on the first GPU, which is timed while nothing trains

and `several.md` says what came of them.
"""

import csv
import itertools
import json
import os
import pathlib
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ON_EACH = 4
SECONDS = 460
KILL_EVERY_SECONDS = 6
CAMPAIGN = """
name = "{name}"
[space]
vocab = 256
d_model = [1024, 1536, 2048, 2560]
depth = {{ min = 4, max = 12 }}
ffn = ["none", "2x", "3x"]
[space.mixers.attn]
head_width = [128]
kv_heads = [4]
[space.mixers.swa]
head_width = [128]
kv_heads = [4]
window = [512, 1024]
[space.mixers.dn]
key_width = [128]
[space.mixers.gdn]
key_width = [64, 128]
[space.mixers.m2]
state_width = [128]
[data]
corpus = "{corpus}"
[training]
tokens = {tokens}
batch = 32
sequence_length = 256
validation_tokens = 65_536
width_scale = 0.25
precision = "bf16"
device = "cuda"
[latency]
device = "cuda:0"
dtype = "bf16"
decode_context = 8192
prefill_tokens = 0
time_whole_models = {whole}
[search]
evaluations = {evaluations}
start = {start}
rungs = {rungs}
references = ["full-attention", "gated-deltanet", "mamba2", "swa-full", "nemotron-flash"]
concurrency = {concurrency}
"""
BEGIN = time.time()


def main() -> None:
    results = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "results").resolve()
    results.mkdir(parents=True, exist_ok=True)
    environment()
    gpus = smi("index,name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu")
    if len(gpus) < 2:
        sys.exit("this takes two GPUs or more")
    (results / "devices.json").write_text(json.dumps(gpus, indent=1))
    watch = subprocess.Popen(
        ["nvidia-smi", "-lms", "500", "--format=csv,noheader,nounits",
         "--query-gpu=timestamp,index,utilization.gpu,memory.used,power.draw,clocks.sm"],
        stdout=open(results / "watch.csv", "w"),
    )
    try:
        parts = []
        for done in run_all(results, len(gpus)):
            parts.append(done)
            (results / "parts.json").write_text(json.dumps(parts))
    finally:
        watch.terminate()
    summary(results, parts, gpus)


def environment() -> None:
    """What the programs need of PyTorch and of CUDA."""
    import importlib.util

    torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
    cuda = pathlib.Path(list(importlib.util.find_spec("nvidia").submodule_search_locations)[0]) / "cu13/lib"
    os.environ["LD_LIBRARY_PATH"] = f"{torch}:{cuda}"
    os.environ.setdefault("DELTAFRONT_NVRTC", str(cuda))


def smi(query: str) -> list[dict[str, str]]:
    lines = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [dict(zip(query.split(","), line.split(", "))) for line in lines]


def run_all(results: pathlib.Path, gpus: int):
    """The parts in the order of their importance; each yields its name, begin and end."""
    last = str(gpus - 1)
    everywhere = [str(gpu) for gpu in range(gpus) for _ in range(ON_EACH)]
    rungs = {"tokens": 2_097_152, "rungs": [131_072, 524_288], "evaluations": 60, "start": 16, "whole": "true"}
    flat = {"tokens": 524_288, "rungs": [], "evaluations": 48, "start": 48, "whole": "false"}
    yield part(results, "each", rungs, (gpus - 1) * ON_EACH)
    yield part(results, "parts", flat | {"tokens": 8_192}, (gpus - 1) * ON_EACH, begin_with="each")
    yield part(results, "rate-1", flat, 1, workers=[last] * ON_EACH, beside="busy", begin_with="parts")
    timed(results, "idle")
    yield part(results, "rate-n", flat, 1, workers=everywhere, begin_with="parts")
    yield part(results, "killed", flat, 1, workers=everywhere, kills=True, begin_with="parts")
    yield part(results, "pull", rungs, 1, workers=[last] * ON_EACH, begin_with="each")
    yield part(results, "one", rungs, ON_EACH, visible="0")


def part(results, name, settings, concurrency, workers=(), visible=None, kills=False, beside=None, begin_with=None):
    """One campaign, which is stopped where the time is over. `begin_with`: the part whose timings it knows."""
    print(f"== {name}", flush=True)
    text = CAMPAIGN.format(name=name, corpus=HERE / "corpus.txt", concurrency=concurrency, **settings)
    file = results / f"{name}.toml"
    file.write_text(text)
    env = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    program = [str(HERE / "deltafront"), "--db", str(results / f"{name}.db")]
    if begin_with:
        with sqlite3.connect(results / f"{begin_with}.db") as known, sqlite3.connect(results / f"{name}.db") as db:
            known.backup(db)
    begin = time.time()
    command = [*program, "run", "--plain", str(file)]
    if workers:
        command += ["--listen", "127.0.0.1:7070", "--only-workers", "--lease", "8"]
    log = open(results / f"{name}.log", "w")
    campaign = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    hired, timing, killed = [], None, 0
    if workers:
        token = invitation(results / f"{name}.log", campaign)
        hired = [hire(results, name, token, place, gpu) for place, gpu in enumerate(workers)]
    counts = [(begin, 0)]
    next_kill, chance = time.time() + 2 * KILL_EVERY_SECONDS, random.Random(1)
    while campaign.poll() is None:
        time.sleep(0.2)
        count = trained(results, name)
        if count > counts[-1][1]:
            counts.append((time.time(), count))
        if left() < 5:
            campaign.send_signal(signal.SIGINT)
            campaign.wait(20)
        if beside and timing is None and counts[-1][1] >= 4:
            timing = timed(results, beside, wait=False)
        if kills and time.time() > next_kill:
            place = chance.randrange(len(hired))
            hired[place].kill()
            hired[place].wait()
            hired[place] = hire(results, name, token, place, workers[place])
            killed, next_kill = killed + 1, time.time() + KILL_EVERY_SECONDS
    end = time.time()
    if campaign.returncode == 0:
        time.sleep(2)  # they end by themselves
    for worker in hired:
        worker.kill()
        worker.wait()
    if timing:
        timing.wait()
    print(f"== {name} ended with {campaign.returncode} after {end - begin:.0f} s", flush=True)
    return {"name": name, "begin": begin, "end": end, "code": campaign.returncode, "killed": killed, "counts": counts}


def left() -> float:
    return BEGIN + SECONDS - time.time()


def invitation(log: pathlib.Path, campaign) -> str:
    """The token that the coordinator says."""
    while campaign.poll() is None:
        found = re.search(r"--token (\S+)", log.read_text())
        if found:
            return found.group(1)
        time.sleep(0.1)
    sys.exit(f"{log}: no token")


def hire(results, name, token, place, gpu):
    folder = results / "workers" / f"{name}-{place}"
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [str(HERE / "deltafront"), "worker", "--connect", "127.0.0.1:7070", "--token", token, "--folder", str(folder)],
        env=dict(os.environ) | {"CUDA_VISIBLE_DEVICES": gpu},
        stdout=subprocess.DEVNULL,
        stderr=open(folder / "log.txt", "a"),
    )


def trained(results, name) -> int:
    try:
        with sqlite3.connect(f"file:{results / name}.db?mode=ro", uri=True) as db:
            return db.execute(
                "SELECT count(*) FROM trainings JOIN candidates c ON c.id = candidate_id JOIN campaigns p ON p.id = campaign_id"
                " WHERE p.name = ?", (name,)
            ).fetchone()[0]
    except sqlite3.Error:
        return 0


def timed(results, name, wait=True):
    """Seven whole models on the first GPU."""
    timing = subprocess.Popen(
        [str(HERE / "deltafront-profile"), "--device", "cuda:0", "--composed", "7"],
        stdout=open(results / f"timed-{name}.jsonl", "w"),
        stderr=subprocess.DEVNULL,
    )
    return timing.wait() if wait else timing


def rows(results, name):
    with sqlite3.connect(results / f"{name}.db") as db:
        found = db.execute(
            "SELECT hash, fidelity, v.name, v.mean FROM candidates c JOIN candidate_values v ON v.candidate_id = c.id"
            " JOIN campaigns p ON p.id = c.campaign_id WHERE p.name = ? AND c.state = 'done'", (name,)
        ).fetchall()
    values: dict[str, dict[str, float]] = {}
    for identity, tokens, metric, mean in found:
        values.setdefault(identity, {"tokens": tokens})[metric] = mean
    return values


def front(values) -> set[str]:
    def better(a, b):
        return a != b and all(a[of] <= b[of] for of in ("bits_per_byte", "decode_us"))

    return {one for one, a in values.items() if not any(better(b, a) for b in values.values())}


def rate(counts) -> float:
    """Trainings a minute between the first and the last eighth, while all workers have work."""
    total = counts[-1][1]
    inner = [(at, count) for at, count in counts if total / 8 <= count <= total * 7 / 8]
    if len(inner) < 2 or inner[-1][0] == inner[0][0]:
        return 0.0
    return 60 * (inner[-1][1] - inner[0][1]) / (inner[-1][0] - inner[0][0])


def summary(results, parts, gpus) -> None:
    say = []
    say.append(f"{len(gpus)} × {gpus[0]['name']}, driver {gpus[0]['driver_version']}\n")
    say.append("| part | s | code | evaluations | trainings | a minute | killed |\n|---|---|---|---|---|---|---|")
    for of in parts:
        name, seconds = of["name"], of["end"] - of["begin"]
        say.append(f"| {name} | {seconds:.0f} | {of['code']} | {len(rows(results, name))} | {of['counts'][-1][1]} | "
                   f"{rate(of['counts']):.1f} | {of['killed']} |")
    for a, b in (("rate-n", "killed"), ("each", "pull"), ("each", "one")):
        if all(any(of["name"] == name for of in parts) for name in (a, b)):
            first, second = rows(results, a), rows(results, b)
            both = [i for i in first.keys() & second.keys() if first[i]["tokens"] == second[i]["tokens"]]
            apart = max((abs(first[i]["bits_per_byte"] - second[i]["bits_per_byte"]) for i in both), default=0.0)
            fronts = front(first), front(second)
            say.append(f"\n{a} and {b}: {len(both)} stacks trained as long in both, losses apart by {apart:.2e} at most; "
                       f"fronts of {len(fronts[0])} and {len(fronts[1])}, {len(fronts[0] & fronts[1])} in both")
    say += ["", *apart_in_time(results), "", *watched(results, parts)]
    (results / "several.md").write_text("\n".join(say) + "\n")
    print("\n".join(say))


def apart_in_time(results):
    """The same models timed while a neighbour trains and while it does not, and the same parts in two campaigns."""
    def wholes(name):
        lines = (results / f"timed-{name}.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return {of["stack"]: of["whole_us"] for of in found if "whole_us" in of}

    busy, idle = wholes("busy"), wholes("idle")
    ratios = [busy[stack] / idle[stack] - 1 for stack in busy.keys() & idle.keys()]
    if ratios:
        yield (f"{len(ratios)} models timed while the neighbour trains over idle: median {100 * statistics.median(ratios):+.2f} %, "
               f"from {100 * min(ratios):+.2f} to {100 * max(ratios):+.2f} %")
    tables = []
    for name in ("each", "one"):
        if (results / f"{name}.db").exists():
            with sqlite3.connect(results / f"{name}.db") as db:
                tables.append(dict(db.execute("SELECT key, median_us FROM latencies")))
    if len(tables) == 2:
        ratios = [tables[0][key] / tables[1][key] - 1 for key in tables[0].keys() & tables[1].keys()]
        if ratios:
            within = sum(abs(ratio) <= 0.02 for ratio in ratios)
            yield (f"{len(ratios)} parts, neighbour training over nothing training: median {100 * statistics.median(ratios):+.2f} %, "
                   f"{within} within 2 %")


def watched(results, parts):
    """By part and GPU: how busy, memory, power."""
    samples = []
    with open(results / "watch.csv") as file:
        for line in csv.reader(file):
            if len(line) == 6:
                at = time.mktime(time.strptime(line[0].strip()[:19], "%Y/%m/%d %H:%M:%S"))
                samples.append((at, line[1].strip(), *(float(x) for x in line[2:])))
    yield "| part | GPU | busy, % | memory at most, MiB | power, W, mean and most | clock, MHz, least |\n|---|---|---|---|---|---|"
    for of, gpu in itertools.product(parts, sorted({sample[1] for sample in samples})):
        seen = [s for s in samples if s[1] == gpu and of["begin"] <= s[0] <= of["end"]]
        if seen:
            mean = statistics.fmean
            yield (f"| {of['name']} | {gpu} | {mean(s[2] for s in seen):.0f} | {max(s[3] for s in seen):.0f} | "
                   f"{mean(s[4] for s in seen):.0f}, {max(s[4] for s in seen):.0f} | {min(s[5] for s in seen):.0f} |")


if __name__ == "__main__":
    main()
