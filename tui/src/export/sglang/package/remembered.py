"""What layers remember of a sequence beside keys and values: tensors by name, and as one row of numbers."""

import json
import math
from functools import lru_cache

import torch

from .modeling_deltafront import PARTS, Place

START = Place(0, None, None)


@lru_cache(maxsize=None)
def of_mixer(d, mixer):
    """Name → (shape, type) of what a mixer has in its memory after one token; found by running it without values."""
    shape = json.loads(mixer)
    shape.pop("norm_after", None)
    kind, memory = shape.pop("kind"), {}
    with torch.device("meta"), torch.no_grad():
        part, x = PARTS[kind](d, **shape), torch.zeros(1, 1, d)
        if kind != "attention":
            part(x, START, memory)
        elif part.phi is not None:
            part.phi(x, memory)
    return {name: (tuple(x.shape[1:]), x.dtype) for name, x in memory.items()}


def remembered(config):
    """Of each layer that remembers something, by its number."""
    mixers = {index: layer["mixer"] for index, layer in enumerate(config.layers) if "mixer" in layer}
    found = {index: of_mixer(config.hidden_size, json.dumps(mixer, sort_keys=True)) for index, mixer in mixers.items()}
    return {index: entries for index, entries in found.items() if entries}


def width(entries):
    """Numbers of a row."""
    return sum(math.prod(shape) for shape, _ in entries.values())


def unpack(rows, entries):
    """Rows [B, ≥ width] as a memory: tensors [B, …]."""
    memory, at = {}, 0
    for name, (shape, dtype) in entries.items():
        end = at + math.prod(shape)
        memory[name] = rows[:, at:end].reshape(-1, *shape)
        if not dtype.is_floating_point:
            memory[name] = memory[name].round().to(dtype)
        at = end
    return memory


def pack(memory, entries):
    """A memory as rows [B, width]."""
    return torch.cat([memory[name].reshape(memory[name].shape[0], -1).float() for name in entries], 1)
