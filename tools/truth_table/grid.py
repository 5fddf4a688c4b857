#!/usr/bin/env python3
"""The table of a space whose every stack was trained: grid.py RUNS.jsonl PROFILE.json... > grid.csv

RUNS.jsonl is what `bench.py RUNS.jsonl --corpus FOLDER --grid` wrote; a profile is what `deltafront profile STACK --json`
says of the stack of all four mixers at one width (`grid.py --stacks` prints them): its parts are added up. A row is a stack:
its width, its mixers from the first layer on, bits per byte of held-out text after so many tokens, each a finished training
of its own at "auto", the standard error of the held-out text there, and microseconds of a decode step and of a prefill.
"""

import collections
import csv
import json
import re
import sys

import plan

LONGEST = 4 * max(plan.GRID["tokens"])  # of some stacks only


def name(text):
    """Width and mixers of a stack."""
    width, layers = re.match(r"d=(\d+)", text)[1], []
    for part in text.split(" | ")[1:]:
        count, kind = re.match(r"(?:(\d+)\*)?(\w+)\(", part).groups()
        layers += [kind] * int(count or 1)
    return int(width), "-".join(layers)


def latencies(profiles):
    """Microseconds of each part by width and phase."""
    table = {}
    for path in profiles:
        with open(path) as file:
            profile = json.load(file)
        for phase in profile["phases"]:
            parts = {part["part"].split("(")[0]: part["timing"]["median_us"] for part in phase["parts"]}
            width = int(re.search(r"\d+", phase["parts"][1]["part"])[0]) // 3  # of ffn(3 d)
            table[width, phase["conditions"]["phase"]] = parts
    return table


def main():
    if sys.argv[1:] == ["--stacks"]:
        for width in plan.GRID["widths"]:
            print(plan.stacked(width, plan.GRID["mixers"]))
        return
    runs, profiles = sys.argv[1], sys.argv[2:]
    parts = latencies(profiles)
    cells = collections.defaultdict(dict)
    with open(runs) as file:
        for row in map(json.loads, file):
            if "bits_per_byte" in row:
                cells[name(row["stack"])][row["tokens"], row.get("seed", 0)] = row["bits_per_byte"], row["standard_error"]
    tokens = [*plan.GRID["tokens"], LONGEST]
    losses = [f"loss_{n}" for n in tokens]
    again = plan.GRID["tokens"][2]
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["d_model", "mixers", *losses, f"loss_{again}_seed_1", "standard_error", "decode_us", "prefill_us"])
    for width, mixers in sorted(cells, key=lambda cell: (cell[0], cell[1].count("-"), cell[1])):
        of = cells[width, mixers]
        loss = lambda n, seed=0: f"{of[n, seed][0]:.4f}" if (n, seed) in of else ""
        us = [
            sum(part[kind] + part["ffn"] for kind in mixers.split("-")) + part["embedding, norm, head"]
            for part in (parts[width, phase] for phase in ("decode", "prefill"))
        ]
        error = f"{of[plan.GRID['tokens'][-1], 0][1]:.4f}"
        table.writerow([width, mixers, *map(loss, tokens), loss(again, 1), error, f"{us[0]:.2f}", f"{us[1]:.1f}"])


if __name__ == "__main__":
    main()
