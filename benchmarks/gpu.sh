#!/usr/bin/env bash
# Detection and generation on an accelerator, in one command:
#
#     benchmarks/gpu.sh DATA OUT [INCEPTION]
#
# DATA holds mvtec_ad/ and piped/. INCEPTION is torch-fidelity's file of FID's weights; without it the pictures are
# judged in the features of Lite0, and the distance is called FD[lite0]. Run again, it goes on where it ended.
set -euo pipefail

data=${1:?"usage: benchmarks/gpu.sh DATA OUT [INCEPTION]"}
out=${2:?"usage: benchmarks/gpu.sh DATA OUT [INCEPTION]"}
here=$(cd "$(dirname "$0")" && pwd)
anodiff=anodiff
[ -x "$here/../.venv/bin/anodiff" ] && anodiff="$here/../.venv/bin/anodiff"

mkdir -p "$out"
cp "$here/gpu.yaml" "$out/gpu.yaml"
if [ -n "${3:-}" ]; then
  ln -sf "$(realpath "$3")" "$out/inception.pth" # named relative to the file: no path of this machine is kept
  sed -i 's/extractor: lite0/extractor: inception, weights: inception.pth/' "$out/gpu.yaml"
fi
exec "$anodiff" bench "$out/gpu.yaml" --data "$data" -o "$out" --device "${DEVICE:-cuda}"
