#!/usr/bin/env bash
# All that is to be measured of T-one on a machine with an NVIDIA GPU, in one call of less than ten minutes:
#
#   benchmarks/gpu.sh OUT [PYTHON]
#
# OUT gets machine.txt; tests.txt: is it right, with all kernels, graphs and precisions; bench-*.json and bench.txt: how
# fast (bench-*.log holds the figures of a call that ran out of time); profile.txt: where runs of 1024 streams spend
# their time. PYTHON (default: python3) needs a CUDA build of torch with Triton, numpy, onnx, onnxruntime, safetensors,
# typer, rich, pytest and hypothesis; rechka itself is taken from this checkout.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
python=$(command -v "${2:-python3}") || exit 2
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=0

{ nvidia-smi; "$python" -c 'import sys, torch, triton; print(sys.version, torch.__version__, triton.__version__)'; } \
  > "$out/machine.txt" 2>&1 || failed=1
timeout 140 "$python" -m pytest -q -m "gpu or not slow" tests/parity/test_tone_gpu.py tests/unit/test_fused.py \
  > "$out/tests.txt" 2>&1 || failed=1
tail -n 5 "$out/tests.txt"
timeout 40 "$python" benchmarks/gpu_profile.py > "$out/profile.txt" 2>&1 || failed=1
# The contestants that matter most come first, and each call leaves its own file if time runs out.
for turn in "bf16 fused" "bf16 tiled" "fp8 fused" "bf16 eager" "bf16 compiled"; do
  set -- $turn
  timeout 80 "$python" -m rechka bench gpu --precision "$1" --kernels "$2" --seconds 0.4 --json \
    > "$out/bench-$2-$1.json" 2> "$out/bench-$2-$1.log" || failed=1
done
"$python" benchmarks/gpu_table.py "$out" | tee "$out/bench.txt" || failed=1
exit $failed
