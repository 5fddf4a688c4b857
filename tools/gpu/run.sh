#!/bin/bash
# All GPU checks and measurements in one command of at most 8 minutes: run.sh [RESULTS]
#
# First every kernel against its definition and its times; only if that holds PyTorch's and fla's, layers in training,
# random stacks composed against whole, and a small campaign whose proxies train there too; a table of all at the end.
# Everything lands in RESULTS (default: results) as text and JSON. What is not done after 8 minutes is cut off and said;
# the order is by importance.
set -u
here=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "${1:-results}" && cd "${1:-results}" && pwd)
cd "$here" || exit 1
lib=$(python3 -c 'import os, importlib.util as u; print(os.path.join(os.path.dirname(u.find_spec("torch").origin), "lib"))') ||
    { echo "python3 finds no torch: install torch 2.11 for CUDA 13, or put its Python first in PATH"; exit 1; }
cuda=$(python3 -c 'import os, importlib.util as u; print(os.path.join(list(u.find_spec("nvidia").submodule_search_locations)[0], "cu13", "lib"))' 2>/dev/null)
export LD_LIBRARY_PATH="$lib:$cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
[ -n "${DELTAFRONT_NVRTC:-}" ] || { [ -d "$cuda" ] && export DELTAFRONT_NVRTC=$cuda; }

part() { # NAME SECONDS COMMAND...: one part, whose output is kept; its failure does not end the others
    local name=$1 seconds=$2 begin=$SECONDS left=$((475 - SECONDS))
    shift 2
    ((left > 0)) || { echo "== $name: no time left"; return 124; }
    ((seconds < left)) || seconds=$left
    echo "== $name"
    timeout "$seconds" "$@" 2>&1 | tee "$results/$name.txt"
    local code=${PIPESTATUS[0]}
    echo "== $name ended with $code after $((SECONDS - begin)) s"
    return "$code"
}

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu,pstate --format=csv | tee "$results/device.txt"
part doctor 60 ./deltafront --db "$results/campaign.db" doctor
part kernels 150 ./gpu_engine --json "$results/kernels.jsonl" || { echo "a kernel is wrong: no timings"; exit 1; }
part chunked 120 ./chunked_speed "$results/chunked.jsonl" || { echo "a kernel is wrong: no timings"; exit 1; }
part training 90 ./gpu_training "$results/training.jsonl"
part composed 120 ./deltafront-profile --device cuda:0 --composed 12
part composed-small 60 ./deltafront-profile --device cuda:0 --composed 8 --small
part composed-prompts 60 ./deltafront-profile --device cuda:0 --composed 6 --prefill 2048
part composed-batches 60 ./deltafront-profile --device cuda:0 --composed 6 --batch 16
for name in composed composed-small composed-prompts composed-batches; do
    grep '^{' "$results/$name.txt" >"$results/$name.jsonl" 2>/dev/null
done
part campaign 100 ./deltafront --db "$results/campaign.db" run --plain campaign.toml
./deltafront --db "$results/campaign.db" show target-stacks --json >"$results/campaign.json" 2>/dev/null
site=$results/site
python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" wheels/*.whl 2>/dev/null
PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} part peers 180 python3 peers.py
grep '^{' "$results/peers.txt" >"$results/peers.jsonl" 2>/dev/null
rm -rf "$site"
nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active --format=csv | tee -a "$results/device.txt"
python3 table.py "$results" | tee "$results/table.txt"
echo "all of it took $SECONDS s"
