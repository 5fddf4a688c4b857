"""The problem as a black box for `deltafront optimize`: answers from the table, keeps a log for the benchmark.

worker.py PROBLEM.pickle SEED LOG MEAN_SECONDS: each evaluation takes about MEAN_SECONDS; 0: no time.
"""

import json
import pickle
import sys
import time
from pathlib import Path

from problems import Problem, duration

problem = Problem(**pickle.loads(Path(sys.argv[1]).read_bytes()))
seed, log, mean_seconds = int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
names = [parameter["name"] for parameter in problem.parameters]


def index(parameter, value):
    return parameter["choices"].index(value) if "choices" in parameter else value - parameter["low"]


asked = None  # when the previous answer went out
for line in sys.stdin:
    now = time.perf_counter()
    request = json.loads(line)
    if request["type"] == "space":
        reply = {"type": "space", "parameters": problem.parameters, "objectives": problem.objectives}
    elif request["type"] == "eval":
        given = request["parameters"]
        # Absent parameters are not sent.
        point = tuple(
            index(parameter, given[name]) if name in given else 0 for name, parameter in zip(names, problem.parameters)
        )
        values = problem.observe(point, seed)
        if mean_seconds:
            time.sleep(mean_seconds * duration(point, seed))
        if values is None:
            reply = {"type": "infeasible", "id": request["id"], "reason": "no such cell"}
        else:
            reply = {"type": "values", "id": request["id"], "values": dict(zip(problem.objectives, values))}
        with open(log, "a") as file:
            file.write(json.dumps([point, None if asked is None else now - asked]) + "\n")
    else:
        continue
    print(json.dumps(reply), flush=True)
    asked = time.perf_counter()
