"""Hypervolume over that of the true front, by moocore, and what many runs of it say."""

import moocore
import numpy

REFERENCE = 1.1


class Scale:
    """Objectives in units of the true front's range."""

    def __init__(self, problem):
        self.problem = problem
        every = numpy.array([problem.mean(point) for point in problem.cells])
        front = every[moocore.is_nondominated(every)]
        self.low = front.min(axis=0)
        self.range = front.max(axis=0) - self.low
        self.best = self.volume(front)
        self.front = len(front)

    def volume(self, values):
        if len(values) == 0:
            return 0.0
        scaled = (numpy.asarray(values) - self.low) / self.range
        return float(moocore.hypervolume(scaled, ref=[REFERENCE] * len(self.low)))

    def share(self, points):
        """HV/HV* of some evaluated points, by the means of their cells."""
        means = [self.problem.mean(tuple(point)) for point in points]
        return self.volume([mean for mean in means if mean is not None]) / self.best


def interval(table, draws=4000, seed=0):
    """Mean of a table [problems][seeds] and its 95 % bootstrap interval: seeds are drawn anew within each problem, as
    the problems are given and the seeds are chance."""
    rng = numpy.random.default_rng(seed)
    rows = [numpy.array(row) for row in table if len(row)]
    means = numpy.zeros(draws)
    for row in rows:
        means += row[rng.integers(len(row), size=(draws, len(row)))].mean(axis=1)
    means /= len(rows)
    low, high = numpy.quantile(means, [0.025, 0.975])
    return float(numpy.mean([row.mean() for row in rows])), float(low), float(high)
