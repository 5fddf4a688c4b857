#!/usr/bin/env python3
"""What check_on_gpu.py asks of one stack: on_gpu.py QUESTION FOLDER [--theirs FOLDER] [--device cuda] [--trainer PROGRAM]

Every number is beside the modelling file's plain PyTorch in fp32 on the same device, which is set beside deltafront's own torch
model first. Kernels round what they read to bf16, so theirs is held against the error of plain PyTorch in bf16: at most twice
as large. An answer is a line of JSON, `failed` in it names what does not hold.

    hf     the modelling file with fla's kernels and without: logits, tokens, padding, a prompt in two pieces, gradients
    fla    the folder of `--to fla` by fla's own classes, beside the same weights by the modelling file
    scale  logits and times of a large stack, with the kernels and without; it times when a line comes in

Kernels choose among two of their tunings but for `scale`: most of the time would be their compiler's otherwise.
"""

import argparse
import contextlib
import copy
import json
import pathlib
import statistics
import sys
import time

import torch
import transformers
from check import GREEDY, TOLERANCE, ours
from transformers import AutoModelForCausalLM

LENGTHS = (17, 150, 1000)
PROMPT, CUT = 150, 61
TIMES_PLAIN = 2.0  # what the error may be of that of plain PyTorch in bf16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=["hf", "fla", "scale"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--theirs", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--trainer", default="deltafront-train")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if args.question != "scale" and args.device == "cuda":
        tune_little()
    own = Own(args.folder, args.device)
    parts = {"hf": (logits, greedy, padding, pieces, gradients, mixers), "fla": (fla_logits, fla_greedy, fla_gradients),
             "scale": (large_logits, large_times)}[args.question]
    if args.question == "fla":
        own.theirs = Theirs(args.theirs, args.device)
    for part in parts:
        answer = {"part": part.__name__}
        try:
            answer |= part(own, args)
        except Exception as error:  # what one part comes to must not hide the others
            answer |= {"failed": [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]}
        print(json.dumps(answer), flush=True)


def tune_little():
    """Before fla is imported."""
    from triton.runtime.autotuner import Autotuner

    begin = Autotuner.__init__

    def begin_with_two(self, fn, names, configs, *rest, **options):
        begin(self, fn, names, configs[:2], *rest, **options)

    Autotuner.__init__ = begin_with_two


class Own:
    """The modelling file's model in fp32 and bf16, with a switch for the kernels and a note of which ran."""

    def __init__(self, folder, device):
        self.folder, self.device = folder, device
        begin = time.time()
        self.wide = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
        self.wide = self.wide.to(device).eval()
        self.load_s = round(time.time() - begin, 2)
        self.narrow = copy.deepcopy(self.wide).bfloat16()
        self.module = sys.modules[type(self.wide).__module__]
        self.used, find = set(), self.module.fla

        def noted(operation, *rest):
            kernel = find(operation, *rest)
            self.used |= {operation.split(".")[-1]} if kernel else set()
            return kernel

        self.module.fla = noted
        self.module.KERNELS["fla"] = False

    @contextlib.contextmanager
    def kernels(self):
        self.used.clear()
        self.module.KERNELS["fla"] = True
        yield
        self.module.KERNELS["fla"] = False

    def forms(self):
        """What is set beside plain fp32: a name, a model, whether by kernels."""
        return ("plain_bf16", self.narrow, False), ("kernels_fp32", self.wide, True), ("kernels_bf16", self.narrow, True)

    def by(self, kernels):
        return self.kernels() if kernels else contextlib.nullcontext()

    def tokens(self, length=PROMPT, batch=2):
        tokens = torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(7))
        return tokens.to(self.device)


@torch.no_grad()
def said(model, tokens, mask=None):
    return model(tokens, attention_mask=mask).logits.float()


@torch.no_grad()
def written(model, tokens, mask=None):
    """64 greedy tokens after each row."""
    mask = torch.ones_like(tokens) if mask is None else mask
    text = model.generate(tokens, attention_mask=mask, max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False, pad_token_id=0,
                          eos_token_id=None)
    return text[:, tokens.shape[1]:]


def apart(got, expected):
    """‖got − expected‖ / ‖expected‖."""
    return ((got - expected).norm() / expected.norm()).item()


def farthest(got, expected):
    return (got - expected).abs().max().item()


def beyond(answer, names=("kernels_fp32", "kernels_bf16")):
    """Which forms are farther from plain fp32 than twice plain bf16."""
    return [f"{name} {answer[name]:.2g}, plain bf16 {answer['plain_bf16']:.2g}" for name in names
            if name in answer and not answer[name] <= TIMES_PLAIN * answer["plain_bf16"]]


def logits(own, args):
    tokens = own.tokens()
    expected, _ = ours(args.trainer, own.folder / "model.safetensors", tokens.cpu(), 0)
    plain = said(own.wide, tokens)
    answer = {"load_s": own.load_s, "plain_beside_ours": farthest(plain.cpu(), expected), "largest": plain.abs().max().item()}
    for name, model, kernels in own.forms():
        with own.by(kernels):
            pairs = [(said(model, own.tokens(n)), n) for n in LENGTHS]
            answer |= {"used": sorted(own.used)} if kernels else {}
        pairs = [(got, said(own.wide, own.tokens(n))) for got, n in pairs]
        answer[name] = max(apart(*pair) for pair in pairs)
        answer[f"{name}_most"] = max(farthest(*pair) for pair in pairs)
    failed = beyond(answer)
    if answer["plain_beside_ours"] > TOLERANCE:
        failed.append("plain fp32 beside ours")
    return answer | {"failed": failed}


def agreement(own, tokens, got, expected):
    """How many greedy tokens are the same before the first other one, and by how much plain fp32 prefers its own there."""
    alike, gap = GREEDY, 0.0
    for row in range(len(tokens)):
        other = (got[row] != expected[row]).nonzero()
        if len(other):
            at = other[0].item()
            text = torch.cat([tokens[row], expected[row, :at]])[None]
            there = said(own.wide, text)[0, -1]
            alike = min(alike, at)
            gap = max(gap, (there[expected[row, at]] - there[got[row, at]]).item())
    return {"alike": alike, "gap": gap}


def greedy(own, args):
    tokens = own.tokens()
    _, expected = ours(args.trainer, own.folder / "model.safetensors", tokens.cpu(), GREEDY)
    plain = written(own.wide, tokens)
    answer = {"plain_as_ours": bool((plain.cpu() == expected).all()), "failed": []}
    for name, model, kernels in own.forms():
        with own.by(kernels):
            got, there = written(model, tokens), said(model, tokens)
        answer[name] = agreement(own, tokens, got, plain)
        if answer[name]["gap"] > 2 * farthest(there, said(own.wide, tokens)):
            answer["failed"].append(f"{name}: another token, and no close call")
    return answer if answer["plain_as_ours"] else answer | {"failed": ["plain fp32 beside ours", *answer["failed"]]}


def padded(tokens):
    """The first row shorter than the second, with padding before it, and the mask."""
    tokens, mask = tokens.clone(), torch.ones_like(tokens)
    tokens[0, :CUT], mask[0, :CUT] = 0, 0
    return tokens, mask


def padding(own, _):
    tokens = own.tokens()
    batch = padded(tokens)
    expected = torch.cat([said(own.wide, tokens[:1, CUT:])[0], said(own.wide, tokens)[1]])
    answer = {}

    def rows(both):
        return torch.cat([both[0, CUT:], both[1]])

    answer["plain_fp32"] = farthest(rows(said(own.wide, *batch)), expected)
    plain = written(own.wide, *batch)
    for name, model, kernels in own.forms():
        with own.by(kernels):
            answer[name] = apart(rows(said(model, *batch)), expected)
            if name == "kernels_fp32":
                got = written(model, *batch)
                others = [(row != other).nonzero().flatten().tolist() for row, other in zip(got, plain)]
                answer["greedy_alike"] = min(at[0] if at else GREEDY for at in others)
    alone = torch.cat([written(own.wide, tokens[:1, CUT:]), written(own.wide, tokens[1:])])
    answer["plain_greedy"] = bool((plain == alone).all())
    failed = beyond(answer)
    if answer["plain_fp32"] > TOLERANCE or not answer["plain_greedy"]:
        failed.append("plain fp32 beside each row alone")
    return answer | {"failed": failed}


@torch.no_grad()
def pieces(own, _):
    """A prompt in two pieces: the second begins with what the first left."""
    tokens, answer = own.tokens(), {}
    expected = said(own.wide, tokens)[:, 70:]

    def second(model):
        first = model(tokens[:, :70], use_cache=True)
        return model(tokens[:, 70:], cache=first.cache, use_cache=True).logits.float()

    for name, model, kernels in (("plain_fp32", own.wide, False), *own.forms()):
        with own.by(kernels):
            answer[name] = apart(second(model), expected)
    return answer | {"failed": beyond(answer) + (["plain fp32"] if answer["plain_fp32"] > TOLERANCE else [])}


def learnt(model, tokens):
    """Loss and gradients by name of one step of training."""
    model.train()
    model.zero_grad()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    model.eval()
    return loss.item(), {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}


def gradients_apart(got, expected):
    """All gradients together, and the worst tensor of those that matter: relative norms of the difference."""
    all_of_it = sum(g.square().sum() for g in expected.values()).sqrt()
    off = sum((got[name] - g).square().sum() for name, g in expected.items()).sqrt()
    worst = {name: apart(got[name], g) for name, g in expected.items() if g.norm() > 1e-3 * all_of_it}
    name = max(worst, key=worst.get)
    return (off / all_of_it).item(), [name, worst[name]]


def gradients(own, _):
    tokens = own.tokens(300)
    loss, expected = learnt(own.wide, tokens)
    answer = {"loss": loss}
    for name, model, kernels in own.forms():
        with own.by(kernels):
            loss, got = learnt(model, tokens)
            answer |= {"used": sorted(own.used)} if kernels else {}
        answer[name], answer[f"{name}_worst"] = gradients_apart(got, expected)
        answer[f"{name}_loss"] = loss
    return answer | {"failed": beyond(answer)}


def mixers(own, _):
    """The first mixer of each kind by itself, on the same input: its output and its gradients."""
    seen = {}

    def see(mixer, inputs):
        seen.setdefault(type(mixer).__name__, (mixer, *inputs[:2]))

    hooks = [block.mixer.register_forward_pre_hook(see) for block in own.wide.model.layers if block.mixer is not None]
    said(own.wide, own.tokens(300))
    for hook in hooks:
        hook.remove()
    answer, failed = {}, []

    def run(mixer, x, place, direction):
        mixer.zero_grad()
        x = x.detach().requires_grad_()
        y = mixer(x, place)
        y.backward(direction.to(y))
        return y.detach().float(), torch.cat([t.grad.float().flatten() for t in (x, *mixer.parameters()) if t.grad is not None])

    for kind, (mixer, x, place) in seen.items():
        x = x.float()
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x.device)
        expected = run(mixer, x, place, direction)
        narrow = copy.deepcopy(mixer).bfloat16()
        answer[kind] = {}
        for name, module, kernels in (("plain_bf16", narrow, False), ("kernels_fp32", mixer, True), ("kernels_bf16", narrow, True)):
            with own.by(kernels):
                with torch.no_grad():
                    y = module(x.to(next(module.parameters()).dtype), place).float()
                used, _ = sorted(own.used), own.used.clear()
                _, gradient = run(module, x.to(next(module.parameters()).dtype), place, direction)
                if kernels:
                    answer[kind] |= {"used": used, "used_in_training": sorted(own.used)}
            answer[kind][name] = apart(y, expected[0])
            answer[kind][f"{name}_gradients"] = apart(gradient, expected[1])
        failed += [f"{kind}: {words}" for words in beyond(answer[kind])]
    return answer | {"failed": failed}


class Theirs:
    """fla's own model of a folder, in bf16 as fla is used, and in fp32. flash-attention is not asked for: its two functions are
    PyTorch's attention here."""

    def __init__(self, folder, device):
        import fla.layers.attn
        import fla.models  # noqa: F401  registers its types with transformers

        fla.layers.attn.flash_attn_func = flash_attention
        fla.layers.attn.flash_attn_varlen_func = flash_attention_of_several
        begin = time.time()
        self.wide, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        self.wide = self.wide.to(device).eval()
        self.load_s = round(time.time() - begin, 2)
        self.missing = sorted(loading["missing_keys"]) + sorted(loading["unexpected_keys"])
        self.narrow = copy.deepcopy(self.wide).bfloat16()


def flash_attention(q, k, v, *_, causal=True, window_size=(-1, -1), **__):
    """[B, T, H, K], as flash_attn_func has it: the last query is at the last key."""
    t, s, groups = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), *(x.repeat_interleave(groups, 2).transpose(1, 2) for x in (k, v))
    at, key = torch.arange(s - t, s, device=q.device)[:, None], torch.arange(s, device=q.device)[None]
    seen = key <= at
    if window_size[0] >= 0:
        seen &= key >= at - window_size[0]
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


def flash_attention_of_several(q, k, v, cu_seqlens_q, cu_seqlens_k, window_size=(-1, -1), **_):
    """[all positions, H, K], a sequence behind the other."""
    ends = zip(cu_seqlens_q.tolist(), cu_seqlens_q.tolist()[1:], cu_seqlens_k.tolist(), cu_seqlens_k.tolist()[1:])
    return torch.cat([flash_attention(q[None, a:b], k[None, c:d], v[None, c:d], window_size=window_size)[0] for a, b, c, d in ends])


def fla_logits(own, _):
    theirs = own.theirs
    answer = {"model": type(theirs.wide).__name__, "config": type(theirs.wide.config).__module__, "load_s": theirs.load_s,
              "missing": theirs.missing, "failed": []}
    for name, model in (("plain_bf16", own.narrow), ("kernels_bf16", theirs.narrow), ("kernels_fp32", theirs.wide)):
        try:
            pairs = [(said(model, own.tokens(n)), said(own.wide, own.tokens(n))) for n in LENGTHS]
        except (AssertionError, RuntimeError) as error:
            answer[f"{name}_refused"] = str(error).splitlines()[0]
            continue
        answer[name] = max(apart(*pair) for pair in pairs)
        answer[f"{name}_most"] = max(farthest(*pair) for pair in pairs)
    answer["failed"] = beyond(answer) + [f"weights {name}" for name in theirs.missing]
    return answer


def fla_greedy(own, _):
    """By fla's caches, alone and in a padded batch."""
    tokens, answer, failed = own.tokens(), {}, []
    plain = written(own.wide, tokens)
    for name, model in (("plain_bf16", own.narrow), ("kernels_bf16", own.theirs.narrow)):
        answer[name] = agreement(own, tokens, written(model, tokens), plain)
        if answer[name]["gap"] > 2 * farthest(said(model, tokens), said(own.wide, tokens)):
            failed.append(f"{name}: another token, and no close call")
    batch = padded(tokens)
    expected = torch.cat([said(own.wide, tokens[:1, CUT:])[0], said(own.wide, tokens)[1]])
    for name, model in (("plain_bf16", own.narrow), ("kernels_bf16", own.theirs.narrow)):
        got = said(model, *batch)
        answer[f"{name}_padded"] = apart(torch.cat([got[0, CUT:], got[1]]), expected)
    if answer["kernels_bf16_padded"] > TIMES_PLAIN * answer["plain_bf16_padded"]:
        failed.append("padded batch")
    return answer | {"failed": failed}


def fla_gradients(own, _):
    """fla names tensors otherwise: those with the same values are the same."""
    tokens = own.tokens(300)
    by_values = {}
    for name, p in own.wide.named_parameters():
        by_values.setdefault(p.detach().cpu().numpy().tobytes(), []).append(name)
    same = {}
    for name, p in own.theirs.wide.named_parameters():
        names = by_values.get(p.detach().cpu().numpy().tobytes(), [])
        if len(names) == 1:
            same[name] = names[0]
    loss, expected = learnt(own.wide, tokens)
    expected = {name: expected[name] for name in same.values()}
    answer = {"loss": loss, "compared": len(same), "of": sum(1 for _ in own.theirs.wide.parameters())}
    _, got = learnt(own.narrow, tokens)
    answer["plain_bf16"], _ = gradients_apart(got, expected)
    try:
        answer["kernels_bf16_loss"], got = learnt(own.theirs.narrow, tokens)
    except RuntimeError as error:
        return answer | {"refused": str(error).splitlines()[0], "failed": []}
    got = {same[name]: g.reshape(expected[same[name]].shape) for name, g in got.items() if name in same}
    answer["kernels_bf16"], answer["kernels_bf16_worst"] = gradients_apart(got, expected)
    return answer | {"failed": beyond(answer)}


def large_logits(own, _):
    tokens, answer = own.tokens(1000, 1), {"load_s": own.load_s, "parameters": sum(p.numel() for p in own.wide.parameters())}
    expected = said(own.wide, tokens)
    for name, model, kernels in own.forms():
        with own.by(kernels):
            got = said(model, tokens)
        answer[name], answer[f"{name}_most"] = apart(got, expected), farthest(got, expected)
    return answer | {"largest": expected.abs().max().item(), "failed": beyond(answer)}


def large_times(own, args):
    """Medians in milliseconds, bf16: a prompt of 8,192 tokens; a step of training, forward and backward, of 4 times 2,048."""
    long, batch = (8192, 2048) if args.device == "cuda" else (256, 128)

    def prompt():
        with torch.no_grad():
            own.narrow(own.tokens(long, 1), use_cache=True, logits_to_keep=1)

    def step():
        own.narrow.train()
        own.narrow.zero_grad()
        tokens = own.tokens(batch, 4)
        own.narrow(tokens, labels=tokens).loss.backward()
        own.narrow.eval()

    def milliseconds(work):
        begin = time.perf_counter()
        work()
        if args.device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begin)

    all_of_them = [(what, work, name, kernels) for what, work in (("prompt", prompt), ("step", step))
                   for name, kernels in (("plain", False), ("kernels", True))]
    answer = {"failed": []}
    for what, work, name, kernels in all_of_them:  # compiles
        with own.by(kernels):
            work()
            answer |= {f"{what}_used": sorted(own.used)} if kernels else {}
    if args.device == "cuda":
        torch.cuda.empty_cache()
    sys.stdin.readline()
    for what, work, name, kernels in all_of_them:
        with own.by(kernels):
            work()
            answer[f"{what}_{name}_ms"] = round(statistics.median(milliseconds(work) for _ in range(5)), 1)
    return answer


if __name__ == "__main__":
    main()
