#!/usr/bin/env python3
"""A profiler that says beforehand what it refuses. FAKE_REFUSES is a JSON list of [part of a model's JSON, reason], FAKE_FAILS a
reason why nothing can be done at all; with FAKE_MISSING its device is not there, or only the device of that name. With FAKE_AT
it refuses only where the conditions have that text in their JSON."""
import json, os, sys

def say(**reply):
    print(json.dumps(reply), flush=True)

refuses = json.loads(os.environ.get("FAKE_REFUSES", "[]"))
missing = os.environ.get("FAKE_MISSING")
if missing == "1" or missing in sys.argv:
    print("deltafront-profile: cuda:0 cannot be timed: no GPU 0", file=sys.stderr)
    sys.exit(1)
say(type="hello", protocol=1, worker="picky 1.0", can=["measure", "measure_whole", "check"], device="cpu: picky", kernels="picky-1")
for line in sys.stdin:
    request = json.loads(line)
    kind = request["type"]
    if kind == "check":
        with open(os.path.join(os.environ["FAKE_FOLDER"], "checks"), "a") as file:
            file.write(line)
        if fails := os.environ.get("FAKE_FAILS"):
            say(type="failed", id=request["id"], reason=fails)
            continue
        models = [json.dumps(model) for model in request["architectures"]]
        refused = [
            {"of": of, "reason": reason}
            for part, reason in refuses
            if os.environ.get("FAKE_AT", "") in line
            and (of := [place for place, model in enumerate(models) if part in model])
        ]
        say(type="checked", id=request["id"], refused=refused)
    elif kind.startswith("measure"):
        say(type="timing", id=request["id"], median_us=20.0 + len(line) % 50, spread_us=0.5, samples=31, other_load=0.01, kernels="picky-1")
