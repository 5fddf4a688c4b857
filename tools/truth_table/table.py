#!/usr/bin/env python3
"""Tables of what run.py wrote: table.py RUNS... [--rule NAME] [--cells | --auto]

For each rule the base rate with the least mean excess over all its stacks, that excess on average and at worst, and the
mean of the best losses over the stacks that all rules share; with --cells the losses of each stack at each rate. With
--auto instead: for each length how much more than its best a stack loses at "auto", on average and at worst.
"""

import argparse
import collections
import json
import math

import plan


def at_auto(rows):
    """Excess of "auto" over the best of three rates or more, by length."""
    lengths = collections.defaultdict(dict)
    for row in rows:
        if row["seed"] == 0 and "bits_per_byte" in row:
            octaves = round(math.log2(row["rate"] / plan.auto(row, plan.BASE_RATE)), 2)
            size = (row["tokens"], row["batch"], row["sequence_length"])
            lengths[size].setdefault(row["stack"], {})[octaves] = row["bits_per_byte"]
    for (tokens, batch, length), stacks in sorted(lengths.items()):
        excess = {s: l[0.0] - min(l.values()) for s, l in stacks.items() if len(l) >= 3 and 0.0 in l}
        if excess:
            worst = max(excess, key=excess.get)
            mean = sum(excess.values()) / len(excess)
            print(f"{tokens:9} tokens, {batch}x{length}: {len(excess)} stacks, mean {mean:.4f}, worst {excess[worst]:.4f}: {worst}")


def label(row):
    stack = row["stack"]
    d = stack.split(",")[0]
    layers, _, rest = stack.split(" | ")[1].partition("*")
    kind = rest.split("(")[0] + ("+qk" if "qknorm" in rest else "")
    tokens = f"{row['tokens'] / 2**20:.2g}M/{row['batch']}x{row['sequence_length']}"
    return f"{kind:7} {d:6} L{layers:3} {tokens}" + ("" if ",tied" in stack else " untied") + f" s{row['seed']}"


def cells(rows):
    """Losses by rule, cell and rate."""
    table = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        table[row["rule"]][label(row)][row["rate"]] = row.get("bits_per_byte", math.inf)
    return table


def excess(losses, rate):
    """Over the best of the grid; where the rate was not run, by a parabola through the nearest three in log rate."""
    best = min(losses.values())
    if rate in losses:
        return losses[rate] - best
    near = sorted(losses, key=lambda r: abs(math.log(r / rate)))[:3]
    if len(near) < 3 or any(math.isinf(losses[r]) for r in near):
        return math.inf
    x = [math.log2(r / rate) for r in near]
    y = [losses[r] for r in near]
    at = sum(
        y[i] * math.prod(-x[j] / (x[i] - x[j]) for j in range(3) if j != i) for i in range(3)
    )
    return max(at - best, 0.0)


def vertex(losses):
    """The best rate, by a parabola through the best of the grid and its neighbours."""
    finite = sorted(r for r in losses if math.isfinite(losses[r]))
    if not finite:
        return math.nan
    best = min(finite, key=losses.get)
    at = finite.index(best)
    if not 0 < at < len(finite) - 1:
        return best
    a, b, c = (losses[r] for r in finite[at - 1 : at + 2])
    return best * 2 ** (0.5 * (a - c) / (a - 2 * b + c)) if a - 2 * b + c > 0 else best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rule")
    parser.add_argument("--cells", action="store_true")
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--text", help="of runs on another text, by its name in the table")
    arguments = parser.parse_args()
    rows = [json.loads(line) for path in arguments.runs for line in open(path)]
    rows = [row for row in rows if row.get("text") == arguments.text]
    if arguments.auto:
        return at_auto([row for row in rows if row["rule"] == (arguments.rule or plan.PRODUCT)])
    table = cells(rows)
    complete = {rule: {c: l for c, l in of.items() if len(l) >= 3} for rule, of in table.items()}
    print(f"{'rule':36} {'cells':>5} {'rate':>8} {'mean':>6} {'worst':>6}  best rates' spread (octaves)")
    for rule, of in complete.items():
        if not of or (arguments.rule and rule != arguments.rule):
            continue
        rates = sorted({r for losses in of.values() for r in losses})
        means = {r: sum(excess(l, r) for l in of.values()) / len(of) for r in rates}
        best = min(rates, key=means.get)
        all_excess = [excess(l, best) for l in of.values()]
        octaves = [math.log2(vertex(l)) for l in of.values()]
        center = sum(octaves) / len(octaves)
        spread = (sum((o - center) ** 2 for o in octaves) / len(octaves)) ** 0.5
        print(
            f"{rule:36} {len(of):5} {best:8.1e} {sum(all_excess) / len(all_excess):6.3f} {max(all_excess):6.3f}"
            f"  {2**center:8.1e} ± {spread:.2f}"
        )
    names = sorted({c for of in complete.values() for c in of})
    print("\nbest losses, and the rates they are at")
    for cell in names:
        print(f"  {cell}")
        for rule, of in complete.items():
            if cell in of and not (arguments.rule and rule != arguments.rule):
                losses = of[cell]
                line = f"    {rule:36} {min(losses.values()):6.3f} at {vertex(losses):8.1e}"
                if arguments.cells:
                    line += "  " + " ".join(f"{r:.1e}:{losses[r]:.3f}" for r in sorted(losses))
                print(line)


if __name__ == "__main__":
    main()
