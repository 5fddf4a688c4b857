#!/usr/bin/env python3
"""Trains many stacks at once under training rules, the most important first, and stops cleanly at a time limit.

    run.py SEARCHES RULES OUT --program PROGRAM --corpus CORPUS [--workers 12] [--seconds 450] [--device cuda:0,cuda:1]

SEARCHES has one JSON object a line: {"rule", "stack", "tokens", "batch", "sequence_length", "seed", "center", "first",
"least", "most", "training"}. A search trains one stack at base rates center · 2^k: the k of "first" (or as many around 0
as "least" says, 3 by default), then further towards the better end until the best has a neighbour on either side, "most"
runs in all. A rule is names of RULES, joined by " + ", where each has {"groups": […], "training": {…}}; "rule N"
is the one that is built in, whose number that must be. OUT gets a JSON line a run, as it ends.

A search may be of a contest: {"contest": NAME, "candidate": PART}. When all of a contest are done, the candidate whose
stacks have the least mean loss at one rate (at "at", where a search says so) wins, and its part stands for {NAME} in
the rules of later searches. "known" are losses by rate that need no run.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import threading
import time

DIVERGED = 9.0  # bits per byte of a training that failed
GRACE = 12  # seconds in which the last runs may end after the time limit


class Search:
    """Runs of one stack under one rule at rates that bracket the best."""

    def __init__(self, spec):
        self.spec = spec
        least = spec.get("least", 3)
        self.first = spec.get("first") or sorted((k - least // 2 for k in range(least)), key=abs)
        least = len(self.first)
        self.most = max(spec.get("most", 6), least)
        self.done = {round(math.log2(float(r) / spec["center"])): l for r, l in spec.get("known", {}).items()}
        self.given = list(self.done)
        self.finished = False

    def take(self):
        """The next rate to train at, as a power of 2 over the center; none for now, or for ever."""
        for k in self.first:
            if k not in self.given:
                self.given.append(k)
                return k
        if len(self.done) < len(self.given):
            return None
        if len(self.given) >= self.most:
            self.finished = True
            return None
        best = min(self.done, key=lambda k: (self.done[k], k))
        for k in (best - 1, best + 1):
            if k not in self.given:
                self.given.append(k)
                return k
        self.finished = True
        return None

    def loss(self, k):
        """At a rate that may lie between those that were run: the parabola through the nearest three."""
        if k in self.done:
            return self.done[k]
        near = sorted(self.done, key=lambda other: (abs(other - k), other))[:3]
        return sum(
            self.done[i] * math.prod((k - j) / (i - j) for j in near if j != i) for i in near
        )


def verdict(searches):
    """The candidate with the least mean loss at one rate for all its stacks."""
    scores = {}
    for candidate in {s.spec["candidate"] for s in searches}:
        of = [s for s in searches if s.spec["candidate"] == candidate]
        if all("at" in s.spec for s in of):
            rates = [0.0]
            losses = lambda _: [s.loss(math.log2(s.spec["at"] / s.spec["center"])) for s in of]
        else:
            base = of[0].spec["center"]
            rates = [k / 2 for k in range(-6, 7)]
            losses = lambda k: [s.loss(k + math.log2(base / s.spec["center"])) for s in of if s.done]
            low = max(min(s.done) + math.log2(s.spec["center"] / base) for s in of)
            high = min(max(s.done) + math.log2(s.spec["center"] / base) for s in of)
            rates = [k for k in rates if low <= k <= high] or [0.0]
        scores[candidate] = min(sum(losses(k)) / len(of) for k in rates)
    return min(scores, key=scores.get), scores


class Pool:
    def __init__(self, arguments, searches, rules):
        self.arguments, self.searches, self.rules = arguments, searches, rules
        self.lock = threading.Lock()
        self.out = open(arguments.out, "a")
        self.deadline = time.monotonic() + arguments.seconds
        self.processes, self.runs = set(), 0
        self.closed = False
        self.winners = {}

    def next(self):
        with self.lock:
            for search in self.searches:
                search.spec["rule"] = re.sub(r"\{(\w+)\}", self.winner, search.spec["rule"])
                if "{" in search.spec["rule"]:
                    continue
                k = search.take()
                if k is not None:
                    return search, k
        return None

    def winner(self, match):
        name = match[1]
        if name not in self.winners:
            contest = [s for s in self.searches if s.spec.get("contest") == name]
            if not all(s.finished for s in contest):
                return match[0]
            self.winners[name], scores = verdict(contest)
            print(f"{name}: {self.winners[name]} of {scores}", flush=True)
        return self.winners[name]

    def job(self, search, k):
        spec = search.spec
        product = re.fullmatch(r"rule \d+", spec["rule"])
        rule = {"groups": [], "training": {}}
        for part in [] if product else spec["rule"].split(" + "):
            rule["groups"] = rule["groups"] + self.rules[part]["groups"]
            rule["training"] |= self.rules[part].get("training", {})
        training = {"validation_tokens": 131072}
        training |= {key: spec[key] for key in ("tokens", "batch", "sequence_length")}
        training |= rule.get("training", {}) | spec.get("training", {})
        training["learning_rate"] = spec["center"] * 2.0**k
        job = {"stack": spec["stack"], "training": training, "seed": spec.get("seed", 0)}
        return job if product else job | {"rule": rule["groups"]}

    def worker(self, device):
        process = None
        while time.monotonic() < self.deadline:
            taken = self.next()
            if taken is None:
                with self.lock:
                    working = not all(s.finished for s in self.searches)
                if not working:
                    break
                time.sleep(0.05)
                continue
            search, k = taken
            if process is None or process.poll() is not None:
                process = subprocess.Popen(
                    [self.arguments.program, self.arguments.corpus, str(self.arguments.threads)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )
                with self.lock:
                    self.processes.add(process)
            try:
                job = self.job(search, k)
                job["training"]["device"] = device
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                result = json.loads(line) if line else {"error": f"the trainer ended with {process.wait(5)}"}
            except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
                process.kill()
                result = {"error": str(problem)}
            if self.closed:
                return
            self.record(search, k, result)
        if process is not None:
            process.stdin.close()
            process.wait(10)

    def record(self, search, k, result):
        spec = search.spec
        row = {key: spec[key] for key in ("rule", "stack", "tokens", "batch", "sequence_length")}
        row |= {"seed": spec.get("seed", 0), "rate": spec["center"] * 2.0**k} | result
        row |= {"training": spec["training"]} if spec.get("training") else {}
        for key, digits in {"bits_per_byte": 5, "standard_error": 5, "seconds": 1, "tokens_per_s": None, "rate": 9}.items():
            row |= {key: round(row[key], digits)} if row.get(key) is not None else {}
        with self.lock:
            search.done[k] = result.get("bits_per_byte", DIVERGED)
            self.runs += 1
            self.out.write(json.dumps(row) + "\n")
            self.out.flush()
            if "error" in result:
                print(f"{row['rule']} {row['stack']} {row['rate']:.1e}: {result['error']}", file=sys.stderr)

    def work(self):
        devices = self.arguments.device.split(",")
        threads = [
            threading.Thread(target=self.worker, args=[devices[i % len(devices)]], daemon=True)
            for i in range(self.arguments.workers)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join(max(0.1, self.deadline + GRACE - time.monotonic()))
        self.closed = True
        for process in self.processes:
            process.kill()
        with self.lock:
            self.out.flush()
        complete = sum(len(s.done) >= len(s.first) for s in self.searches)
        print(f"{self.runs} runs; {complete} of {len(self.searches)} searches complete", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches")
    parser.add_argument("rules")
    parser.add_argument("out")
    parser.add_argument("--program", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--device", default="cuda:0")
    arguments = parser.parse_args()
    with open(arguments.searches) as file:
        searches = [Search(json.loads(line)) for line in file if line.strip()]
    with open(arguments.rules) as file:
        rules = json.load(file)
    Pool(arguments, searches, rules).work()


if __name__ == "__main__":
    main()
