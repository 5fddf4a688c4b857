#!/usr/bin/env python3
"""A latency command: a whole model takes 10 µs for each layer, 20 in prefill. Models of FAKE_REFUSES layers are refused."""
import json, os, sys


def say(**reply):
    print(json.dumps(reply), flush=True)


say(type="hello", protocol=1, worker="stopwatch 1.0", can=["measure_whole"], device="phone: fake")
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] != "measure_whole":
        continue
    with open(os.path.join(os.environ["FAKE_FOLDER"], "order"), "a") as file:
        file.write("time\n")
    layers = len(request["architecture"]["layers"])
    if layers == int(os.environ.get("FAKE_REFUSES", 0)):
        say(type="infeasible", id=request["id"], reason=f"{layers} layers are too many")
        continue
    scale = 20 if request["conditions"]["phase"] == "prefill" else 10
    say(type="timing", id=request["id"], median_us=scale * layers, spread_us=0.25, samples=9, other_load=0, kernels="phone 1")
