#!/usr/bin/env python3
"""Which share of pairs of stacks short trainings put in the order of the long ones: pairs.py RUNS... [--rule NAME]

A stack's long loss is its best over rates at the most tokens there are; its short ones are those at fewer tokens, each
length by itself, at "auto" or at --rate. Pairs whose long losses lie within --tie are coin flips in the long runs as
well, so the share is given without them, too. The interval is from 2000 draws of stacks with replacement, of pairs of
different stacks: 90 of 100.

    pairs.py RUNS --long FILE    takes the long losses from a JSON object of stack: loss instead
"""

import argparse
import itertools
import json
import random

import plan


def share(pairs, short, long, tie):
    """Right pairs over pairs, leaving ties out."""
    decided = [(a, b) for a, b in pairs if abs(long[a] - long[b]) > tie]
    right = sum((short[a] < short[b]) == (long[a] < long[b]) for a, b in decided)
    return right / len(decided) if decided else float("nan"), len(decided)


def interval(stacks, short, long, tie, seed=0):
    """From the 5th to the 95th of 100, over draws of stacks."""
    draw = random.Random(seed)
    shares = []
    for _ in range(2000):
        chosen = [draw.choice(stacks) for _ in stacks]
        pairs = [(a, b) for a, b in itertools.combinations(chosen, 2) if a != b]
        got, count = share(pairs, short, long, tie)
        if count:
            shares.append(got)
    if not shares:
        return float("nan"), float("nan")
    shares.sort()
    return shares[len(shares) // 20], shares[-1 - len(shares) // 20]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rule")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--tie", type=float, default=0.02)
    parser.add_argument("--long")
    parser.add_argument("--text", help="of runs on another text, by its name in the table")
    arguments = parser.parse_args()
    rows = [json.loads(line) for path in arguments.runs for line in open(path)]
    rows = [row for row in rows if row["seed"] == 0 and "bits_per_byte" in row]
    rows = [row for row in rows if row.get("text") == arguments.text]
    rows = [row for row in rows if not arguments.rule or row["rule"] == arguments.rule or arguments.long]
    most = max(row["tokens"] for row in rows)
    long = {}
    if arguments.long:
        with open(arguments.long) as file:
            long, most = json.load(file), most + 1
    for row in rows:
        if row["tokens"] == most:
            long[row["stack"]] = min(row["bits_per_byte"], long.get(row["stack"], 99.0))
    print(f"{'rule':60} {'tokens':>9} {'batch':>9} stacks  all pairs            beyond {arguments.tie} bits")
    setups = {(row["rule"], row["tokens"], row["batch"], row["sequence_length"]) for row in rows if row["tokens"] < most}
    for rule, tokens, batch, length in sorted(setups):
        if arguments.rule and rule != arguments.rule:
            continue
        short = {
            row["stack"]: row["bits_per_byte"]
            for row in rows
            if (row["rule"], row["tokens"], row["batch"], row["sequence_length"]) == (rule, tokens, batch, length)
            and abs(row["rate"] / (arguments.rate or plan.auto(row, plan.BASE_RATE)) - 1) < 1e-6
        }
        stacks = sorted(set(short) & set(long))
        if len(stacks) < 5:
            continue
        pairs = list(itertools.combinations(stacks, 2))
        line = f"{rule:60} {tokens:9} {batch:4}x{length:<4} {len(stacks):6}"
        for tie in (0.0, arguments.tie):
            got, count = share(pairs, short, long, tie)
            low, high = interval(stacks, short, long, tie)
            line += f"  {got:.3f} [{low:.2f}, {high:.2f}] of {count:3}"
        print(line)


if __name__ == "__main__":
    main()
