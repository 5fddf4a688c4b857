"""The table: each arm's mean with its interval, its worst problem, its repeats and proposal times."""

from collections import defaultdict

from problems import load
from runs import CHECKPOINTS
from score import Scale, interval


def show(rows, arms, names, cache):
    shares = scored(rows, names, cache)
    print(f"HV/HV*: mean over {len(names)} problems [95 % bootstrap interval over seeds]; infeasible and repeated points count")
    header = ["arm", "seeds"] + [f"@{n}" for n in CHECKPOINTS] + ["worst problem @100", "repeats", "proposal ms: median, last quarter, worst"]
    table = [header]
    for arm in arms:
        own = [row for row in rows if row["arm"] == arm]
        if not own:
            continue
        counts = [len(shares[arm, name, CHECKPOINTS[0]]) for name in names]
        cells = [arm, str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"]
        for at in CHECKPOINTS:
            cells.append(text(interval([list(shares[arm, name, at].values()) for name in names])) if all(shares[arm, name, at] for name in names) else "-")
        worst = [(sum(v.values()) / len(v), name) for name in names if (v := shares[arm, name, 100])]
        cells.append("{1} {0:.3f}".format(*min(worst)) if worst else "-")
        cells.append(str(sum(row["repeats"] for row in own)))
        cells.append(
            f"{middle(row['proposal_ms_median'] for row in own):.1f}, "
            f"{middle(row['proposal_ms_last_quarter'] or 0 for row in own):.1f}, {max(row['proposal_ms_worst'] for row in own):.0f}"
        )
        table.append(cells)
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if "deltafront" in arms:
        print("\ndeltafront minus another arm, paired by problem and seed [95 % interval]")
        for arm in arms:
            if arm == "deltafront":
                continue
            parts = []
            for at in CHECKPOINTS:
                pairs = [
                    [ours - shares[arm, name, at][seed] for seed, ours in shares["deltafront", name, at].items() if seed in shares[arm, name, at]]
                    for name in names
                ]
                if all(pairs):
                    parts.append(f"@{at} {text(interval(pairs), '+')} ({sum(map(len, pairs))} pairs)")
            if parts:
                print(f"  {arm:10} " + "   ".join(parts))
    print("\nmean HV/HV* by problem @" + "/".join(map(str, CHECKPOINTS)))
    for name in names:
        for arm in arms:
            means = [shares[arm, name, at] for at in CHECKPOINTS]
            if means[0]:
                print(f"  {name:20} {arm:10} " + " ".join(f"{sum(m.values()) / len(m):.3f}" if m else "-" for m in means))


def scored(rows, names, cache):
    """Shares by arm, problem and number of evaluations, each a dict by seed. Scores are kept beside the runs."""
    shares = defaultdict(dict)
    for name in names:
        scale = None
        for row in (row for row in rows if row["problem"] == name):
            for at in CHECKPOINTS:
                if len(row["points"]) >= at:
                    scale = scale or Scale(load(name, cache))
                    shares[row["arm"], name, at][row["seed"]] = scale.share(row["points"][:at])
    return shares


def text(estimate, sign=""):
    mean, low, high = estimate
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def middle(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
