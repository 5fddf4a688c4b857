"""A latency command for those who deploy on llama.cpp: `[latency] command = "python3 latency_llama_cpp.py"`.

Each stack is exported as a GGUF file with random weights, as it stands in the campaign, and timed by llama-cpp-python
(`pip install llama-cpp-python`): the next token of a context, or a prompt. `deltafront` must be on the PATH, or named by
DELTAFRONT. A stack that llama.cpp cannot hold is infeasible: `deltafront export STACK --check` says which it can.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import llama_cpp

DELTAFRONT = os.environ.get("DELTAFRONT", "deltafront")
SECONDS, SAMPLES_MIN, SAMPLES_MAX = 0.5, 5, 200
TYPES = {"fp32": ("fp32", llama_cpp.GGML_TYPE_F32), "bf16": ("bf16", llama_cpp.GGML_TYPE_F16)}


class Refused(Exception):
    """What no second try would help."""


def export(architecture, dtype, folder):
    stack, file = os.path.join(folder, "stack.json"), os.path.join(folder, "stack.gguf")
    with open(stack, "w") as out:
        json.dump({"architecture": architecture}, out)
    command = [DELTAFRONT, "export", stack, "--to", "gguf", "--random", "--dtype", dtype, "-o", file]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Refused(" ".join(done.stderr.split())[:500])
    return file


def sample(work):
    """µs of each call of `work`, which gives the time that it took itself."""
    work()
    end, samples = time.perf_counter() + SECONDS, []
    while len(samples) < SAMPLES_MIN or time.perf_counter() < end and len(samples) < SAMPLES_MAX:
        samples.append(work() * 1e6)
    return samples


def measure(architecture, dtype, batch, threads, phase, context=0, tokens=0, **_):
    if dtype not in TYPES or batch != 1:
        raise Refused(f"this command times fp32 and bf16 at batch 1, not {dtype} at {batch}")
    weights, cache = TYPES[dtype]
    length = context if phase == "decode" else tokens
    prompt = [token % architecture["vocab"] for token in range(length)]
    with tempfile.TemporaryDirectory() as folder:
        model = llama_cpp.Llama(export(architecture, weights, folder), n_ctx=length + SAMPLES_MAX + 8, n_batch=max(length, 32),
                                n_ubatch=max(length, 32), n_threads=threads, n_threads_batch=threads, type_k=cache,
                                type_v=cache, n_gpu_layers=-1, verbose=False)

    def took(tokens):
        begin = time.perf_counter()
        model.eval(tokens)
        return time.perf_counter() - begin

    if phase == "decode":
        model.eval(prompt)  # the few that follow lengthen the context a little
        return sample(lambda: took([1]))

    def read_prompt():
        model.reset()
        model._ctx.kv_cache_clear()
        return took(prompt)

    return sample(read_prompt)


def answer(request):
    try:
        samples = measure(request["architecture"], **request["conditions"])
    except Refused as refused:
        return {"type": "infeasible", "reason": str(refused)}
    except Exception as error:
        return {"type": "failed", "reason": f"{type(error).__name__}: {error}"}
    low, middle, high = statistics.quantiles(samples, n=4)
    return {"type": "timing", "median_us": middle, "spread_us": (high - low) / 2, "samples": len(samples), "other_load": 0,
            "kernels": f"llama-cpp-python {llama_cpp.__version__}"}


def say(**reply):
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    say(type="hello", protocol=1, worker="latency_llama_cpp", can=["measure_whole"], device="cpu: llama.cpp here")
    for line in sys.stdin:
        request = json.loads(line)
        if request["type"] == "measure_whole":  # what else is said, the configuration first, need not be known
            say(id=request["id"], **answer(request))
