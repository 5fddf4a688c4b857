#!/usr/bin/env python3
"""Packs all that a bare GPU machine needs for `run.sh` into one folder: our programs, stripped, a text, the scripts.

    tools/gpu/bundle.py FOLDER      needs `cargo build --release --workspace --bins --examples` and `tools/setup.py corpus` before; below 50 MB

The machine needs NVIDIA's driver 580 or newer, Python with PyTorch 2.11 for CUDA 13, and the glibc of Ubuntu 24.04.
The peer fla comes along as a wheel where pip can fetch it.
"""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
PROGRAMS = [
    "deltafront",
    "deltafront-profile",
    "deltafront-train",
    "examples/gpu_engine",
    "examples/chunked_speed",
    "examples/gpu_training",
]
CORPUS_BYTES = 2_000_000
MOST_BYTES = 50_000_000


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        program = CHECKOUT / "target/release" / name
        if not program.is_file():
            sys.exit(f"{program} is not there: cargo build --release --workspace --bins --examples")
        subprocess.run(["strip", "-o", folder / program.name, program], check=True)
    for name in ["run.sh", "several.py", "peers.py", "table.py", "campaign.toml"]:
        shutil.copy(HERE / name, folder / name)
    texts = subprocess.run(
        [sys.executable, CHECKOUT / "tools/setup.py", "corpus"], check=True, capture_output=True, text=True
    ).stdout.strip().splitlines()[-1]
    corpus = b"".join(path.read_bytes() for path in sorted(pathlib.Path(texts).rglob("*.txt")))
    (folder / "corpus.txt").write_bytes(corpus[:CORPUS_BYTES].decode(errors="ignore").encode())
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder / "wheels", "fla-core==0.6.0"],
        check=False,
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
