#!/bin/sh
# `vllm serve` as the profiling Job's pods start it, with the simulated engine behind it; TP 2 does not fit in memory.
#
#   vllm_serve.sh serve MODEL --port N --served-model-name NAME --tensor-parallel-size N …
set -eu
tp=1
while [ $# -gt 0 ]; do
  case "$1" in
    --port) port="$2"; shift ;;
    --served-model-name) name="$2"; shift ;;
    --tensor-parallel-size) tp="$2"; shift ;;
  esac
  shift
done
if [ "$tp" = 2 ]; then
  echo "torch.OutOfMemoryError: CUDA out of memory"
  exit 1
fi
exec python -m worker_graph.simulated --profile "$TRUTH" --role aggregated --port "$port" --model "$name" --speed-up 4
