"""A worker of `deltafront optimize` that behaves as FAKE_BOX says; each evaluation is a line of `evaluations`."""

import json
import os
import sys
import time

mode = os.environ.get("FAKE_BOX", "")
folder = os.environ["FAKE_FOLDER"]
parameters = [
    {"name": "kind", "type": "categorical", "choices": ["a", "b", "c"]},
    {"name": "depth", "type": "ordinal", "choices": [1, 2, 4, 8], "when": {"parameter": "kind", "is": ["a", "b"]}},
    {"name": "width", "type": "log-integer", "low": 4, "high": 64 if mode != "another" else 32},
    {"name": "rate", "type": "ordinal", "choices": [0.001, 0.01, 0.1]},
    {"name": "flag", "type": "categorical", "choices": [True, False]},
]
if mode == "tiny":
    parameters = [{"name": "x", "type": "integer", "low": 0, "high": 6}]
if mode == "float":
    parameters = [{"name": "x", "type": "float", "low": 0, "high": 6}]
objectives = ["error", {"name": "speed", "direction": "maximize"}]
if mode in ("one less", "one more"):
    parameters = [{"name": "x", "type": "integer", "low": 0, "high": 9}]
    objectives = [{"name": "gain", "direction": "minimize" if mode == "one less" else "maximize"}]


def values(x):
    if mode.startswith("one"):
        return {"gain": 10.0 + x["x"]}
    if mode == "tiny":
        return {"error": x["x"], "speed": (x["x"] - 2) ** 2}
    depth = x.get("depth", 3)
    error = 1 / depth + abs(x["rate"] - 0.01) + 4 / x["width"] + 0.1 * x["flag"]
    return {"error": {"mean": error, "standard_error": 0.01}, "speed": 1000 / (depth * x["width"]), "memory": x["width"]}


for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "space":
        if mode == "garbage":
            print("Loading model...", flush=True)
        reply = {"type": "space", "parameters": parameters, "objectives": objectives}
    else:
        with open(os.path.join(folder, "evaluations"), "a") as file:
            file.write(line)
        if mode.startswith("slow"):
            time.sleep(float(mode.split()[1]))
        given = request["parameters"]
        reply = {"type": "values", "values": values(given)}
        if mode == "trouble" and given["kind"] == "b":
            reply = {"type": "infeasible", "reason": "no b"}
        if mode == "trouble" and given["rate"] == 0.1:
            print("something to tell", file=sys.stderr)
            sys.exit(3)
        if mode == "lacking":
            del reply["values"]["speed"]
        if mode == "nan":
            reply["values"]["speed"] = float("nan")
        reply["id"] = request["id"]
    print(json.dumps(reply), flush=True)
