"""One optimiser on one problem with one seed."""

import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import arms
from problems import duration, load

HERE = Path(__file__).parent
CHECKPOINTS = [50, 100, 200]
# Of a simulated evaluation by the real command with several workers. Its proposals take time too: some milliseconds.
MEAN_SECONDS = 0.15


def run(arm, name, seed, workers, evaluations, cache, program):
    """The points in the order of their results, and the seconds that each proposal took."""
    if arm == "deltafront":
        points, seconds = command(name, seed, workers, evaluations, cache, program)
    else:
        points, seconds = simulate(arm, load(name, cache), seed, workers, evaluations)
    quarter = len(seconds) // 4
    return {
        "arm": arm,
        "problem": name,
        "seed": seed,
        "workers": workers,
        "points": points,
        "repeats": len(points) - len(set(map(tuple, points))),
        "proposal_ms_median": 1e3 * statistics.median(seconds),
        # By the end of the run models have all their observations.
        "proposal_ms_last_quarter": 1e3 * statistics.mean(seconds[-quarter:]) if quarter else None,
        "proposal_ms_worst": 1e3 * max(seconds),
    }


def simulate(arm, problem, seed, workers, evaluations):
    """Workers that each ask when they are free, in simulated time."""
    optimiser = arms.PYTHON[arm](problem, seed, workers)
    running, points, seconds = [], [], []
    clock, asked = 0.0, 0
    while len(points) < evaluations:
        while len(running) < workers and asked < evaluations:
            begin = time.perf_counter()
            answer = optimiser.ask()
            if answer is None:
                break
            token, point = answer
            seconds.append(time.perf_counter() - begin)
            finish = clock + (duration(point, seed) if workers > 1 else 1.0)
            heapq.heappush(running, (finish, asked, token, point))
            asked += 1
        clock, _, token, point = heapq.heappop(running)
        begin = time.perf_counter()
        optimiser.tell(token, problem.observe(point, seed))
        seconds[-1] += time.perf_counter() - begin
        points.append(point)
    return points, seconds


def command(name, seed, workers, evaluations, cache, program):
    """The public command with its default settings; a proposal's time is what the worker waits between answer and
    request, everything included that the program does meanwhile, writing its database too."""
    load(name, cache)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        mean = MEAN_SECONDS if workers > 1 else 0
        worker = f"{sys.executable} {HERE / 'worker.py'} {cache / (name + '.pickle')} {seed} {log} {mean}"
        done = subprocess.run(
            [program, "--db", f"{folder}/db", "optimize", "--command", worker, "--evaluations", str(evaluations)]
            + ["--seed", str(seed), "--workers", str(workers), "--quiet"],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} optimize failed on {name}, seed {seed}:\n{done.stderr}")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    seconds = [wait for _, wait in lines if wait is not None]
    return [point for point, _ in lines], seconds
