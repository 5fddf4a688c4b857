#!/usr/bin/env bash
# Fetches NVRTC, which compiles the CUDA kernels, into the user's cache directory: 90 MB, once for all checkouts.
# Needs Python 3 with pip; no GPU, no driver. Safe to interrupt and to repeat.
set -euo pipefail

version=13.0.88
cache="${XDG_CACHE_HOME:-$HOME/.cache}/deltafront"
target="$cache/nvrtc-$version"
library="$target/nvidia/cu13/lib/libnvrtc.so.13"
if [ -e "$library" ]; then
    echo "NVRTC $version is at $library"
    exit 0
fi

mkdir -p "$cache"
partial=$(mktemp -d "$cache/nvrtc-partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
python3 -m pip download --quiet --no-deps --only-binary=:all: --platform manylinux2014_x86_64 \
    --platform manylinux_2_12_x86_64 --platform manylinux2010_x86_64 --dest "$partial" "nvidia-cuda-nvrtc==$version" || {
    echo "fetch-nvrtc: pip could not fetch nvidia-cuda-nvrtc==$version; is this machine online?" >&2
    exit 1
}
python3 -m zipfile -e "$partial"/*.whl "$partial/content"
mv "$partial/content" "$target.$$"
mv -T "$target.$$" "$target" 2>/dev/null || rm -rf "$target.$$" # somebody else was first
echo "NVRTC $version is at $library"
