"""Other people's optimisers as ask and tell: `ask` gives a token and a point, `tell` takes the token and the values.

All of them run as their documentation says, with their defaults but for what an arm's name says. For an infeasible
point they are told the worst value of each objective so far, because none of them takes a trial without values.
"""

import random
import warnings

warnings.filterwarnings("ignore")


class Random:
    """Without repeats."""

    def __init__(self, problem, seed, workers):
        self.problem, self.random, self.seen = problem, random.Random(seed), set()

    def ask(self):
        while True:
            point = tuple(self.random.randrange(size) for size in self.problem.sizes())
            point = self.problem.settle(point)
            if point not in self.seen:
                self.seen.add(point)
                return None, point

    def tell(self, token, values):
        pass


class Study:
    """Optuna's and Rustuna's."""

    def __init__(self, problem, study, key=lambda trial: trial):
        self.problem, self.study, self.key = problem, study, key
        self.worst = None

    def ask(self):
        trial = self.study.ask()
        point, chosen = [], {}
        for parameter, size in zip(self.problem.parameters, self.problem.sizes()):
            name, when = parameter["name"], parameter.get("when")
            if when is not None and chosen.get(when["parameter"]) not in when["is"]:
                point.append(0)
                continue
            if parameter["type"] == "categorical":
                choice = trial.suggest_categorical(name, parameter["choices"])
                index = parameter["choices"].index(choice)
            elif parameter["type"] == "log-integer":
                low, high = parameter["low"], parameter["high"]
                index = trial.suggest_int(name, low, high, log=True) - low
            else:
                index = trial.suggest_int(name, 0, size - 1)
            if "choices" in parameter:
                chosen[name] = parameter["choices"][index]
            point.append(index)
        return trial, tuple(point)

    def tell(self, trial, values):
        if values is not None:
            self.worst = values if self.worst is None else tuple(map(max, self.worst, values))
        else:
            values = self.worst or (1.0,) * len(self.problem.objectives)
        self.study.tell(self.key(trial), list(values))


def optuna(sampler):
    def make(problem, seed, workers):
        import optuna as package

        package.logging.set_verbosity(package.logging.ERROR)
        directions = ["minimize"] * len(problem.objectives)
        return Study(problem, package.create_study(directions=directions, sampler=sampler(package.samplers, seed, workers)))

    return make


def rustuna(sampler):
    def make(problem, seed, workers):
        import rustuna as package

        directions = ["minimize"] * len(problem.objectives)
        study = package.create_study(directions=directions, sampler=sampler(package.samplers, seed, workers))
        return Study(problem, study, lambda trial: trial.number)

    return make


class Pymoo:
    """NSGA-II for mixed variables. It knows generations only: what it is told of late ones waits for their end."""

    def __init__(self, problem, seed, workers):
        from pymoo.algorithms.moo.nsga2 import RankAndCrowdingSurvival
        from pymoo.core.mixed import MixedVariableGA
        from pymoo.core.problem import Problem
        from pymoo.core.variable import Choice, Integer

        self.problem, self.worst = problem, None
        variables = {}
        for parameter, size in zip(problem.parameters, problem.sizes()):
            if parameter["type"] == "categorical":
                variables[parameter["name"]] = Choice(options=list(range(size)))
            else:
                variables[parameter["name"]] = Integer(bounds=(0, size - 1))
        self.algorithm = MixedVariableGA(pop_size=20, survival=RankAndCrowdingSurvival())
        self.algorithm.setup(
            Problem(vars=variables, n_obj=len(problem.objectives)), seed=seed, termination=("n_gen", 10**6), verbose=False
        )
        self.population, self.next, self.told = [], 0, 0

    def ask(self):
        if self.next == len(self.population):
            if self.told < len(self.population):
                return None
            self.population = self.algorithm.ask()
            self.next = self.told = 0
        individual = self.population[self.next]
        self.next += 1
        point = self.problem.settle(int(individual.X[p["name"]]) for p in self.problem.parameters)
        return individual, point

    def tell(self, individual, values):
        import numpy

        if values is not None:
            self.worst = values if self.worst is None else tuple(map(max, self.worst, values))
        individual.set("F", numpy.array(values or self.worst or (1.0,) * len(self.problem.objectives)))
        individual.evaluated.add("F")
        self.told += 1
        if self.told == len(self.population):
            self.algorithm.evaluator.n_eval += len(self.population)
            self.algorithm.tell(infills=self.population)


PYTHON = {
    "random": Random,
    "nsga2-20": optuna(lambda s, seed, _: s.NSGAIISampler(population_size=20, seed=seed)),
    "nsga2-50": optuna(lambda s, seed, _: s.NSGAIISampler(population_size=50, seed=seed)),
    "tpe": optuna(lambda s, seed, workers: s.TPESampler(seed=seed, constant_liar=workers > 1)),
    "gpsampler": optuna(lambda s, seed, _: s.GPSampler(seed=seed)),
    "pymoo": Pymoo,
    "rustuna": rustuna(lambda s, seed, _: s.TPESampler(seed=seed)),
}
