#!/usr/bin/env bash
# The throughput grid on a 7B-shaped model with random weights, on one GPU, in under ten minutes;
# with a model's folder or hub name as first argument also the quality bench on that model.
# Results go to bench/results/throughput-gpu.json and quality-gpu.json. Without a GPU it says so
# and fails: nothing here is ever measured on anything else.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi --query-gpu=name --format=csv,noheader; then
  echo "bench/gpu.sh: no GPU here: nvidia-smi is missing or finds none; nothing was measured" >&2
  exit 1
fi

WORK=${WORK:-$(mktemp -d)}
"$PYTHON" -m bench.dummy_model "$WORK/dummy-7b"
"$PYTHON" -m bench.throughput --model "$WORK/dummy-7b" --name throughput-gpu \
  --samples "$WORK/throughput.jsonl" --kinds fixed --in-flight 1 8 32 --tokens 1024 --segment 64 \
  --grid 64 128 256 512 --grid-tokens 2048 --grid-in-flight 16 --rounds 1 --max-num-seqs 512 \
  --vllm '{"load_format": "dummy", "max_model_len": 4096}'

if [ $# -gt 0 ]; then
  "$PYTHON" -m bench.quality --model "$1" --name quality-gpu --trees "$WORK/trees.jsonl" \
    --problems "${PROBLEMS:-1500}" --max-tokens 512
fi
