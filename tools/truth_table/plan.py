#!/usr/bin/env python3
"""The training rules that were compared, and which runs compare them: plan.py PART FOLDER writes rules.json and
searches.jsonl for run.py. Parts 1 to 6 and alone are those of docs/studies/training-rule.md, which has the expectation, the
tables and the verdict; truth, other, truth-small and grid train
stacks short and long under the product's rule.

Parts 1 to 3 and the cosine of 5 ran under the schedule of then. Of parts 4 to 6 today's trainer knows what won, blocks of 64
units in three steps: it refuses rules with another "block" or "ns", which a trainer of the experiment had."""

import itertools
import json
import pathlib
import random
import sys

STD = 50.0  # factor of the initial values at which the standard deviation of a matrix, 0.02, is 1
REFERENCE = 256.0  # the fan-in at which a matrix takes the base rate as it is
MATRICES = ["Reader", "Writer", "Inner"]
EMBEDDINGS = ["Embedding", "MetaTokens", "Head"]
VECTORS = ["NormWeight", "ConvWeight", "ConvBias", "ALog", "DtBias", "SkipD", "LevelScale"]


def power(factor=1.0, **exponents):
    return {"factor": factor} | exponents


def rates(roles, exponent, of="fan_in"):
    """Rates that fall with a size: as the base rate where it is REFERENCE."""
    return {"roles": roles, "rate": power(REFERENCE**exponent, **{of: -exponent})}


def fan_in_sizes(writers=1.0, depth=0.5):
    """Standard deviation 1/√fan_in, of matrices that write to the residual stream less by the root of the branches."""
    return [
        {"roles": MATRICES, "initial": power(STD, fan_in=-0.5)},
        {"roles": ["Writer"], "initial": power(writers * 2.0**-depth, depth=-depth)},
    ]


def fan_in(matrices, embeddings, writers=1.0):
    return fan_in_sizes(writers) + [rates(MATRICES, matrices), rates(EMBEDDINGS, embeddings, "d")]


def rules():
    embeddings_of_one = [{"roles": EMBEDDINGS, "initial": power(STD, d=-0.5)}]
    table = {
        "today": [],
        "matrices 1, embeddings 1": fan_in(1, 1),
        "matrices 1, embeddings 0.5": fan_in(1, 0.5),
        "matrices 1, embeddings 0": fan_in(1, 0),
        "matrices 0.5, embeddings 0.5": fan_in(0.5, 0.5),
        "matrices 0.5, embeddings 0": fan_in(0.5, 0),
        "writers from 0": fan_in(1, 0.5, writers=0.0),
        "embeddings of 1/sqrt d": fan_in(1, 0.5) + embeddings_of_one,
        "std 0.02, matrices 1": [rates(MATRICES, 1), rates(EMBEDDINGS, 0.5, "d")],
        "norm, rates 0.5": [rates(MATRICES, 0.5), rates(EMBEDDINGS, 0.5, "d")],
        "norm, rates 1": [rates(MATRICES, 1), rates(EMBEDDINGS, 0.5, "d")],
        "muon": fan_in_sizes()
        + [rates(MATRICES, 0.5) | {"orthogonal": True}, rates(EMBEDDINGS, 0.5, "d")],
    }
    base = fan_in(1, 0.5) + embeddings_of_one
    writer = lambda size: [{"roles": ["Writer"], "initial": power(size)}]
    query_key = lambda rate: [
        {"names": ["mixer.q.weight", "mixer.k.weight"], "mixers": ["attn", "swa"], "rate": power(rate)}
    ]
    # the matrices' rate of "base", ∝ 1/fan-in, made 2 · fan-in^-½
    muon = {"orthogonal": True, "rate": power(2.0 * REFERENCE**-0.5, fan_in=0.5)}
    muon_of_half = {"orthogonal": True, "rate": power(4.0 * REFERENCE**-0.5, fan_in=0.5)}
    attention_half = [{"roles": MATRICES, "mixers": ["attn", "swa"], "rate": power(0.5)}]
    table |= {
        "base": base,
        "writers 1": [],
        "writers 0.25": writer(0.25),
        "writers 0": writer(0.0),
        "qk 1": [],
        "qk 0.5": query_key(0.5),
        "qk 0.25": query_key(0.25),
        "plain": [],
        "readers 0.5": [{"roles": ["Reader", "Inner"], "initial": power(0.5)}],
        "vectors 0.5": [{"roles": VECTORS, "rate": power(0.5)}],
        "embeddings rate 0.5": [{"roles": EMBEDDINGS, "rate": power(0.5)}],
        "muon qkvo": [{"roles": MATRICES, "mixers": ["attn", "swa"], **muon}],
        "muon qk": attention_half
        + [{"names": ["mixer.q.weight", "mixer.k.weight"], "mixers": ["attn", "swa"], **muon_of_half}],
        "muon all": [{"roles": MATRICES, **muon}],
        "attention 0.5": attention_half,
    }
    units = lambda block, **more: [
        {"roles": ["Reader", "Inner"], **muon, "block": block, **more},
        {"roles": ["Writer"], **muon, "block": -block, **more},
    ]
    table |= {
        "all 3 steps": [{"roles": MATRICES, **muon, "ns": 3}],
        "rows 64": [{"roles": MATRICES, **muon, "block": 64}],
        "units 64": units(64),
        "units 32": units(32),
        "units 128": units(128),
        "units 64, 3 steps": units(64, ns=3),
        "faster": [{"roles": MATRICES, "rate": power(2.0)}],
        "slower": [{"roles": MATRICES, "rate": power(0.5)}],
        "as fast": [],
        "size": [{"rate": power((REFERENCE * 6) ** 0.5, d=-0.5, depth=-0.5)}],
        "whole": [{"roles": MATRICES, **muon}],
        "cosine": [],
        "power": [],
        "power 0.1": [],
        "power to 0": [],
        "power 0.3": [],
        "power 0.4": [],
        "3 steps": [{"ns": 3}],
        "4 steps": [{"ns": 4}],
    }
    training = {
        "power": {"decay_fraction": 0.2},
        "power 0.1": {"decay_fraction": 0.1},
        "power 0.3": {"decay_fraction": 0.3},
        "power 0.4": {"decay_fraction": 0.4},
        "power to 0": {"decay_fraction": 0.2, "final_learning_rate_fraction": 0.0},
    }
    training |= {name: {"weight_normalisation": True} for name in table if name.startswith("norm")}
    return {name: {"groups": groups, "training": training.get(name, {})} for name, groups in table.items()}


def stack(kind, d, layers, ffn=3, tied=True):
    heads = d // 32
    mixer = {
        "attn": f"attn(h={heads},kv={heads},k=32)",
        "qk": f"attn(h={heads},kv={heads},k=32,qknorm)",
        "swa": f"swa(h={heads},kv={heads},k=32,w=64)",
        "dn": f"dn(h={heads},k=32,v=32)",
        "gdn": f"gdn(h={3 * heads // 4},k=32,v=64)",
        "dp": f"dp(h={heads},k=32,v=32,n=2)",
        "gdp": f"gdp(h={3 * heads // 4},k=32,v=64,n=2)",
        "m2": f"m2(h={heads},p=64,n=64)",
        "lgdn": f"lgdn(h={3 * heads // 4},k=32,v=64,l=15)",
        "lm2": f"lm2(h={heads},p=64,n=64,l=15)",
    }[kind]
    return f"d={d},vocab=256{',tied' if tied else ''} | {layers}*{mixer}+ffn({ffn * d})"


PRODUCT = "rule 2"  # the rule that is built in, by its number: evaluator::rule::NUMBER
BASE_RATE = 1.414e-3  # evaluator::schedule::BASE_RATE

ONE_MILLION = {"tokens": 1_048_576, "batch": 8, "sequence_length": 256}
FOUR_MILLION = {"tokens": 4_194_304, "batch": 32, "sequence_length": 512}


def search(rule, text, size=ONE_MILLION, center=2e-3, **more):
    return {"rule": rule, "stack": text, "center": center} | size | more


def part_1():
    """Which rule holds over widths: pure stacks, 1 M tokens."""
    center = {"today": {96: 4e-3, 384: 2e-3, 768: 1e-3}}
    searches = []

    def add(names, kinds, widths, layers=6):
        for width in widths:
            for kind in kinds:
                for name in names:
                    at = center.get(name, {}).get(width, 2e-3)
                    searches.append(search(name, stack(kind, width, layers), center=at))

    first = ["today", "matrices 1, embeddings 1", "matrices 0.5, embeddings 0.5", "matrices 1, embeddings 0.5"]
    second = ["writers from 0", "embeddings of 1/sqrt d", "norm, rates 0.5", "matrices 1, embeddings 0"]
    third = ["norm, rates 1", "muon", "std 0.02, matrices 1", "matrices 0.5, embeddings 0"]
    add(first, ["attn", "gdn", "m2"], [96, 384, 768])
    add(second, ["attn", "gdn"], [96, 384, 768])
    add(first[1:], ["attn", "gdn"], [192], layers=12)
    add(first[1:], ["attn", "gdn"], [192], layers=3)
    add(third, ["attn", "gdn"], [96, 384, 768])
    add(second, ["m2"], [96, 384, 768])
    add(first, ["dn", "qk"], [96, 384, 768])
    add(third, ["m2"], [96, 384, 768])
    add(first + second, ["swa", "dp"], [96, 768])
    return searches


def part_2():
    """Sizes of the writers, then rates of attention's q and k; the winner over mixers, depths and 4 M tokens."""
    known = {  # part 1, "embeddings of 1/sqrt d": the same as writers of 1
        ("attn", 96): {1e-3: 1.994, 2e-3: 1.965, 4e-3: 2.111},
        ("attn", 384): {1e-3: 1.825, 2e-3: 1.839, 5e-4: 1.902, 4e-3: 1.971},
        ("gdn", 96): {1e-3: 1.779, 2e-3: 1.757, 4e-3: 1.771},
        ("gdn", 384): {1e-3: 1.652, 2e-3: 1.633, 4e-3: 1.636},
    }
    searches = []

    def contest(name, part, rule, kind, width, size=ONE_MILLION, at=2e-3, **more):
        first = [-1, 0, 1] if kind == "attn" else [0, 1]
        of = {"contest": name, "candidate": part, "first": first, "most": 3 if name == "qk" else len(first), "at": at}
        searches.append(search(rule + part, stack(kind, width, 6), size, **(of | more)))

    for size in ["writers 0.25", "writers 0", "writers 1"]:
        for (kind, width), losses in known.items():
            contest("w", size, "base + ", kind, width, **({"known": losses} if size == "writers 1" else {}))
    for part in ["qk 1", "qk 0.5", "qk 0.25", "attention 0.5"]:
        for width, size in [(384, FOUR_MILLION), (192, ONE_MILLION)]:
            contest("qk", part, "base + {w} + ", "attn", width, size, 2e-3 * 2**0.5)
    for part in ["plain", "readers 0.5", "vectors 0.5", "embeddings rate 0.5"]:
        for kind, width in [("gdn", 768), ("gdn", 384), ("m2", 384), ("attn", 384)]:
            contest("x", part, "base + {w} + ", kind, width, **({"first": [-1, 0]} if kind == "attn" else {}))
    rule = "base + {w} + {x} + {qk}"
    small = {"tokens": 262_144, "batch": 8, "sequence_length": 256}
    rest = [(kind, 384, 6, FOUR_MILLION) for kind in ["gdn", "m2"]]
    rest += [(kind, 192, 12, ONE_MILLION) for kind in ["attn", "gdn"]]
    rest += [("m2", width, 6, ONE_MILLION) for width in [96, 384]]
    rest += [(kind, 768, 6, ONE_MILLION) for kind in ["attn", "gdn"]]
    rest += [(kind, 192, 3, ONE_MILLION) for kind in ["attn", "gdn"]]
    rest += [(kind, 192, 6, ONE_MILLION) for kind in ["dn", "swa", "dp", "lm2"]]
    rest += [(kind, 128, 4, small) for kind in ["attn", "gdn"]]
    searches += [search(rule, stack(*shape), size) for *shape, size in rest]
    searches += [search(rule, stack(kind, 384, 6, tied=False)) for kind in ["attn", "gdn"]]
    last = [("attn", 768, 6, FOUR_MILLION), ("m2", 768, 6, ONE_MILLION)]
    last += [(kind, 192, 6, ONE_MILLION) for kind in ["gdp", "lgdn", "qk"]]
    searches += [search(rule, stack(*shape), size) for *shape, size in last]
    searches += [search("muon", stack(kind, 384, 6), center=4e-3) for kind in ["attn", "gdn"]]
    return searches


def hybrid(d):
    mixers = [stack(kind, d, 1).split("*")[1] for kind in ["gdn", "m2", "attn"]]
    return f"d={d},vocab=256,tied | " + " | ".join(mixers * 2)


def part_3():
    """The verdict on stacks that chose nothing; orthogonalised updates of attention alone, and of all matrices."""
    adam, rest = "base + writers 0.25 + vectors 0.5 + attention 0.5", "base + writers 0.25 + vectors 0.5 + "
    small = {"tokens": 262_144, "batch": 8, "sequence_length": 256}
    searches = []
    for part in ["muon qkvo", "muon qk", "attention 0.5"]:
        of = {"contest": "attention", "candidate": part, "at": 2e-3, "most": 3}
        for d, layers, size in [(384, 6, FOUR_MILLION), (384, 6, ONE_MILLION), (192, 6, ONE_MILLION), (128, 4, small)]:
            searches.append(search(rest + part, stack("attn", d, layers), size, **of))
    fresh = [  # as others choose them: kind, text, size
        (1, "d=640,vocab=256,tied | 6*gdn(h=8,k=64,v=128)+ffn(1920)"),
        (4, "d=256,vocab=256,tied | 6*gdn(h=3,k=64,v=128)+ffn(768)"),
        (4, "d=640,vocab=256,tied | 4*m2(h=20,p=64,n=128)+ffn(1280)"),
        (1, "d=256,vocab=256,tied | 8*attn(h=4,kv=2,k=64)+ffn(512)"),
        (4, "d=256,vocab=256,tied | 6*attn(h=4,kv=4,k=64)+ffn(1024)"),
        (1, "d=640,vocab=256,tied | 4*attn(h=10,kv=10,k=64)+ffn(1920)"),
        (1, "d=128,vocab=256,tied | 12*attn(h=2,kv=1,k=64)+ffn(384)"),
        (1, "d=96,vocab=256,tied | 3*attn(h=3,kv=3,k=32)+ffn(288)"),
        (4, "d=640,vocab=256,tied | 6*attn(h=10,kv=5,k=64)+ffn(1280)"),
        (1, "d=128,vocab=256,tied | 8*swa(h=4,kv=4,k=32,w=128)+ffn(256)"),
        (4, "d=320,vocab=256,tied | 4*swa(h=5,kv=5,k=64,w=64)+ffn(960)"),
        (1, "d=96,vocab=256,tied | 12*gdn(h=3,k=24,v=48)+ffn(192)"),
        (1, "d=128,vocab=256,tied | 3*m2(h=4,p=64,n=64)+ffn(512)"),
        (1, "d=320,vocab=256,tied | 12*m2(h=10,p=64,n=64)+ffn(640)"),
        (1, "d=512,vocab=256,tied | 6*dn(h=8,k=64,v=64)+ffn(1536)"),
        (1, "d=96,vocab=256,tied | 3*dn(h=3,k=32,v=32)+ffn(288)"),
        (4, "d=256,vocab=256,tied | 8*dn(h=4,k=64,v=64)+ffn(512)"),
        (1, "d=256,vocab=256,tied | 4*dp(h=4,k=64,v=64,n=2)+ffn(768)"),
        (4, "d=256,vocab=256,tied | 4*gdp(h=3,k=64,v=128,n=2)+ffn(768)"),
        (4, "d=128,vocab=256,tied | 6*m2(h=8,p=32,n=64)+ffn(384)"),
        (1, "d=256,vocab=256,tied | 4*lgdn(h=3,k=64,v=128,l=15)+ffn(768)"),
        (1, "d=256,vocab=256,tied | 4*lm2(h=8,p=64,n=64,l=15)+ffn(768)"),
        (1, "d=256,vocab=256 | 6*m2(h=8,p=64,n=64)+ffn(768)"),
        (1, "d=512,vocab=256 | 4*attn(h=8,kv=8,k=64,qknorm)+ffn(1536)"),
        (4, "d=128,vocab=256,tied | 3*gdn(h=2,k=64,v=128)"),
    ]
    for millions, text in fresh:
        rule = rest + "{attention}" if "attn" in text or "swa" in text else adam
        searches.append(search(rule, text, FOUR_MILLION if millions == 4 else ONE_MILLION, most=5))
    only = {"first": [0], "most": 1}
    truth = [(kind, d) for d in [192, 384, 768] for kind in ["attn", "dn", "gdn", "hyb", "m2"]]
    for size in [ONE_MILLION, FOUR_MILLION]:
        for rule in [rest + "{attention}", rest + "muon all"]:
            for kind, d in truth:
                text = hybrid(d) if kind == "hyb" else stack(kind, d, 6)
                searches.append(search(rule, text, size, **only))
    for seed in [1, 2]:
        for kind in ["attn", "gdn", "m2"]:
            searches.append(search(rest + "{attention}", stack(kind, 192, 6), seed=seed, **only))
    for kind in ["gdn", "m2", "attn"]:
        for size in [ONE_MILLION, FOUR_MILLION]:
            searches.append(search(rest + "muon all", stack(kind, 256, 6), size, most=4))
    return searches


def part_4():
    """Muon for every matrix, by blocks: which blocks, how fast beside AdamW's tensors, and the verdict."""
    rest = "base + writers 0.25 + vectors 0.5 + "
    searches = []
    few = [("attn", 384), ("gdn", 384), ("attn", 192), ("m2", 384), ("dn", 192), ("gdn", 768), ("attn", 96)]
    for part in ["muon all", "units 64", "rows 64", "units 32", "all 3 steps", "units 128", "units 64, 3 steps"]:
        for kind, d in few:
            of = {"contest": "block", "candidate": part, "first": [0, -1, 1], "most": 3}
            searches.append(search(rest + part, stack(kind, d, 6), **of))
    only = {"first": [0], "most": 1}
    truth = [(kind, d) for d in [192, 384, 768] for kind in ["attn", "dn", "gdn", "hyb", "m2"]]
    texts = [hybrid(d) if kind == "hyb" else stack(kind, d, 6) for kind, d in truth]
    for part in ["units 64", "units 32"]:
        searches += [search(rest + part, text, ONE_MILLION, **only) for text in texts]
    for speed in ["as fast", "faster", "slower"]:
        for kind, d in few[:5]:
            of = {"contest": "speed", "candidate": speed, "first": [0, -1, 1], "most": 3}
            searches.append(search(rest + "units 64 + " + speed, stack(kind, d, 6), **of))
    searches += [search(rest + "units 64", text, FOUR_MILLION, **only) for text in texts]
    searches += [search(rest + "units 64 + {speed}", text, size, most=5) for size, text in fresh()]
    return searches


def auto(size, base):
    """The base rate for a size, from that for 2¹¹ tokens a step and 2²⁰ in all."""
    step = size["batch"] * size["sequence_length"]
    return base * (step / 2**11) ** 0.5 * (size["tokens"] / 2**20) ** -0.25


def part_5():
    """The schedule, under rates by size; and whole matrices beside units."""
    rest = "base + writers 0.25 + vectors 0.5 + "
    units, whole = rest + "units 64 + slower + size", rest + "whole + slower + size"
    quarter = {"tokens": 262_144, "batch": 8, "sequence_length": 256}
    few = [("attn", 384), ("gdn", 384), ("attn", 192), ("m2", 384), ("dn", 192), ("gdn", 96)]
    base = 2e-3 * 2**0.5
    searches = []
    for size in [ONE_MILLION, quarter, FOUR_MILLION]:
        for part, first in [("cosine", [0, -1, 1]), ("power", [-1, 0, -2]), ("power to 0", [-1, 0, -2])]:
            for kind, d in few:
                rule = f"{units} + {part}"
                searches.append(search(rule, stack(kind, d, 6), size, auto(size, base), first=first, most=4))
    only = {"first": [0], "most": 1}
    truth = [(kind, d) for d in [192, 384, 768] for kind in ["attn", "dn", "gdn", "hyb", "m2"]]
    texts = [hybrid(d) if kind == "hyb" else stack(kind, d, 6) for kind, d in truth]
    for size in [ONE_MILLION, FOUR_MILLION]:
        for rule in [units, whole]:
            searches += [search(rule, text, size, auto(size, base), **only) for text in texts]
    for kind, d in few:
        searches.append(search(units + " + power 0.1", stack(kind, d, 6), center=base, first=[-1, 0], most=2))
        searches.append(search(whole, stack(kind, d, 6), center=base))
    return searches


def part_6():
    """How long the decay is, and how many steps of Newton and Schulz."""
    rest = "base + writers 0.25 + vectors 0.5 + "
    quarter = {"tokens": 262_144, "batch": 8, "sequence_length": 256}
    few = [("attn", 384), ("gdn", 384), ("attn", 192), ("m2", 384), ("dn", 192), ("gdn", 96)]
    base, only = 2e-3 * 2**-0.5, {"first": [0], "most": 1}
    searches = []
    for size in [ONE_MILLION, quarter, FOUR_MILLION]:
        for part in ["units 64 + slower + size + power 0.3", "units 64 + slower + size + power 0.4"]:
            searches += [search(rest + part, stack(*few), size, auto(size, base), **only) for few in [(k, d, 6) for k, d in few]]
    for part in ["units 64 + slower + size + power + 3 steps", "units 64 + slower + size + power + 4 steps",
                 "units 128 + slower + size + power", "whole + slower + size + power", "whole + slower + size + power + 3 steps"]:
        searches += [search(rest + part, stack(kind, d, 6), center=base, **only) for kind, d in few]
    return searches


def fresh():
    """The stacks of part 3 that chose nothing."""
    sizes = {1_048_576: ONE_MILLION, 4_194_304: FOUR_MILLION}
    of = [s for s in part_3() if "contest" not in s and s.get("most") == 5]
    return [(sizes[s["tokens"]], s["stack"]) for s in of]


TRUTH = [  # every kind, ratios of two and three kinds, depths 3 to 12, widths 128 to 640
    "d=192,vocab=256,tied | 6*attn(h=6,kv=6,k=32)+ffn(576)",
    "d=384,vocab=256,tied | 6*attn(h=6,kv=3,k=64)+ffn(1152)",
    "d=256,vocab=256,tied | 12*attn(h=4,kv=4,k=64)+ffn(512)",
    "d=256,vocab=256,tied | 6*swa(h=8,kv=8,k=32,w=64)+ffn(768)",
    "d=512,vocab=256,tied | 4*swa(h=8,kv=4,k=64,w=128)+ffn(1536)",
    "d=192,vocab=256,tied | 6*dn(h=6,k=32,v=32)+ffn(576)",
    "d=384,vocab=256,tied | 6*dn(h=6,k=64,v=64)+ffn(1152)",
    "d=192,vocab=256,tied | 12*gdn(h=4,k=32,v=64)+ffn(384)",
    "d=384,vocab=256,tied | 6*gdn(h=4,k=64,v=128)+ffn(1152)",
    "d=640,vocab=256,tied | 3*gdn(h=8,k=64,v=128)+ffn(1920)",
    "d=256,vocab=256,tied | 6*dp(h=4,k=64,v=64,n=2)+ffn(768)",
    "d=320,vocab=256,tied | 4*gdp(h=4,k=64,v=128,n=2)+ffn(960)",
    "d=192,vocab=256,tied | 8*m2(h=6,p=64,n=64)+ffn(576)",
    "d=384,vocab=256,tied | 6*m2(h=12,p=64,n=64)+ffn(1152)",
    "d=512,vocab=256,tied | 3*m2(h=16,p=64,n=128)+ffn(1536)",
    "d=256,vocab=256,tied | 4*lgdn(h=3,k=64,v=128,l=15)+ffn(768)",
    "d=256,vocab=256,tied | 4*lm2(h=8,p=64,n=64,l=15)+ffn(768)",
    "d=256,vocab=256,tied | 3*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768)",
    "d=256,vocab=256,tied | 5*m2(h=8,p=64,n=64)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768)",
    "d=384,vocab=256,tied | gdn(h=4,k=64,v=128)+ffn(1152) | m2(h=12,p=64,n=64)+ffn(1152) | attn(h=6,kv=6,k=64)+ffn(1152)"
    " | gdn(h=4,k=64,v=128)+ffn(1152) | m2(h=12,p=64,n=64)+ffn(1152) | attn(h=6,kv=6,k=64)+ffn(1152)",
    "d=384,vocab=256,tied | 2*swa(h=6,kv=6,k=64,w=64)+ffn(768) | attn(h=6,kv=6,k=64)+ffn(768)"
    " | 2*swa(h=6,kv=6,k=64,w=64)+ffn(768) | attn(h=6,kv=6,k=64)+ffn(768)",
    "d=192,vocab=256,tied | 4*dn(h=6,k=32,v=32)+ffn(576) | 2*swa(h=6,kv=6,k=32,w=64)+ffn(576)",
    "d=512,vocab=256,tied | 3*dn(h=8,k=64,v=64)+ffn(1024) | attn(h=8,kv=8,k=64)+ffn(1024)",
    "d=256,vocab=256,tied | 6*m2(h=8,p=64,n=64) | 2*attn(h=4,kv=4,k=64)+ffn(1024)",
    "d=256,vocab=256,tied | attn(h=4,kv=4,k=64)+ffn(768) | 3*gdn(h=3,k=64,v=128)+ffn(768)",
]


def truth():
    """Stacks short by the product's defaults, then long; seeds, and rates on either side of "auto"."""
    short = [{"tokens": tokens, "batch": 8, "sequence_length": 256} for tokens in (262_144, 1_048_576, 4_194_304)]
    long = {"tokens": 16_777_216, "batch": 32, "sequence_length": 512}

    def runs(size, k=0, **more):
        return [search(PRODUCT, text, size, auto(size, BASE_RATE), first=[k], most=1, **more) for text in TRUTH]

    searches = [s for size in [*short, long] for s in runs(size)]
    searches += runs(short[1], seed=1) + runs(short[1], seed=2)
    searches += [s for size in [short[1], long, short[2], short[0]] for k in (1, -1) for s in runs(size, k)]
    return searches


OTHER = [  # stacks that neither rule nor prediction has seen, for another text
    "d=160,vocab=256,tied | 5*attn(h=5,kv=5,k=32)+ffn(640)",
    "d=448,vocab=256,tied | 5*attn(h=7,kv=7,k=64)+ffn(896)",
    "d=224,vocab=256,tied | 7*swa(h=7,kv=7,k=32,w=32)+ffn(448)",
    "d=224,vocab=256,tied | 8*dn(h=7,k=32,v=32)+ffn(672)",
    "d=448,vocab=256,tied | 4*gdn(h=5,k=64,v=128)+ffn(1344)",
    "d=160,vocab=256,tied | 9*gdn(h=4,k=32,v=64)+ffn(320)",
    "d=288,vocab=256,tied | 5*m2(h=9,p=64,n=128)+ffn(864)",
    "d=576,vocab=256,tied | 2*m2(h=18,p=64,n=64)+ffn(2304)",
    "d=320,vocab=256,tied | 5*lgdn(h=4,k=64,v=128,l=15)+ffn(640)",
    "d=288,vocab=256,tied | 2*gdn(h=3,k=64,v=128)+ffn(864) | 2*attn(h=9,kv=9,k=32)+ffn(864) | 2*m2(h=9,p=64,n=64)+ffn(864)",
    "d=320,vocab=256,tied | 3*swa(h=5,kv=5,k=64,w=64)+ffn(960) | m2(h=10,p=64,n=64)+ffn(960) | attn(h=5,kv=5,k=64)+ffn(960)",
    "d=192,vocab=256 | 4*gdp(h=3,k=64,v=64,n=2)+ffn(576)",
]


def other():
    """The verdict on another text: "auto" against half and twice, and the order after sixteen times the tokens."""
    short = {"tokens": 1_048_576, "batch": 8, "sequence_length": 256}
    long = {"tokens": 16_777_216, "batch": 32, "sequence_length": 512}
    plan = [(size, 0) for size in (short | {"tokens": 262_144}, short, short | {"tokens": 4_194_304}, long)]
    return [
        search(PRODUCT, text, size, auto(size, BASE_RATE), first=[k], most=1)
        for size, k in [*plan, (short, 1), (short, -1)]
        for text in OTHER
    ]


def truth_small():
    """The same for a CPU of a few cores: a quarter of the stacks' width, a sixteenth of the tokens."""
    texts = ["attn(h=2,kv=2,k=32)", "swa(h=2,kv=2,k=32,w=32)", "dn(h=2,k=32,v=32)", "gdn(h=1,k=32,v=64)", "m2(h=2,p=64,n=32)"]
    texts = [f"d=64,vocab=256,tied | {layers}*{mixer}+ffn(192)" for mixer in texts for layers in (2, 4)]
    texts += ["d=64,vocab=256,tied | 3*gdn(h=1,k=32,v=64)+ffn(192) | attn(h=2,kv=2,k=32)+ffn(192)"]
    searches = []
    for tokens, k in [(65_536, 0), (262_144, 0), (1_048_576, 0), (1_048_576, -1), (1_048_576, 1)]:
        size = {"tokens": tokens, "batch": 4, "sequence_length": 256}
        searches += [search(PRODUCT, text, size, auto(size, BASE_RATE), first=[k], most=1) for text in texts]
    return searches


GRID = {  # widths, and the mixers that each of four layers may be, or none
    "widths": [64, 128],
    "mixers": ["attn", "swa", "gdn", "m2"],
    "layers": 4,
    "tokens": [65_536, 262_144, 1_048_576, 4_194_304],
}


def stacked(width, kinds):
    """A layer of each kind, with an FFN of three times the width."""
    return f"d={width},vocab=256,tied | " + " | ".join(stack(kind, width, 1).split("1*")[1] for kind in kinds)


def grid_stacks():
    """All of 1 to 4 layers: 340 orders of mixers at each width."""
    for width in GRID["widths"]:
        for layers in range(1, GRID["layers"] + 1):
            for kinds in itertools.product(GRID["mixers"], repeat=layers):
                yield stacked(width, kinds)


def grid():
    """Every stack of a space, at each rung a finished training of its own: a problem whose every cell is known. Stacks in
    an order by chance, the short trainings first, so that a part of it is a fair sample."""
    stacks = sorted(grid_stacks())
    random.Random(0).shuffle(stacks)
    searches = []
    for of in (GRID["tokens"][:3], GRID["tokens"][3:]):
        for text in stacks:
            for tokens in of:
                size = {"tokens": tokens, "batch": 8, "sequence_length": 256}
                searches.append(search(PRODUCT, text, size, auto(size, BASE_RATE), first=[0], most=1))
    again = {"tokens": GRID["tokens"][2], "batch": 8, "sequence_length": 256}
    searches += [search(PRODUCT, text, again, auto(again, BASE_RATE), first=[0], most=1, seed=1) for text in stacks[:100]]
    return searches


def alone():
    """Tokens a second without neighbours."""
    rest, few = "base + writers 0.25 + vectors 0.5 + ", {"tokens": 196_608, "batch": 8, "sequence_length": 256}
    rules = ["today", rest + "attention 0.5", rest + "muon qkvo", rest + "muon all", PRODUCT]
    return [
        search(rule, stack(kind, 384, 6), few, first=[0], most=1, seed=seed)
        for seed in [0, 1]
        for kind in ["attn", "gdn"]
        for rule in rules
        if kind == "attn" or "qkvo" not in rule
    ]


def main():
    part, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    searches = {"1": part_1, "2": part_2, "3": part_3, "4": part_4, "5": part_5, "6": part_6, "alone": alone, "truth": truth, "other": other, "truth-small": truth_small, "grid": grid}[part]()
    (folder / "rules.json").write_text(json.dumps(rules()))
    (folder / "searches.jsonl").write_text("".join(json.dumps(s) + "\n" for s in searches))
    print(f"{len(searches)} searches")


if __name__ == "__main__":
    main()
