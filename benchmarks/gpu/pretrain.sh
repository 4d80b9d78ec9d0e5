#!/usr/bin/env bash
# Measures pretraining on this machine's NVIDIA card: see benchmarks/gpu/pretrain.py.
#
#   benchmarks/gpu/pretrain.sh --pack       # where there is a network: fetches wheels to carry along
#   benchmarks/gpu/pretrain.sh [options]    # on the card's machine; options go to the Python module
#
# That machine's python3 needs torch with CUDA, transformers, pytorch-lightning and torchvision; what
# else is missing comes from $WHEELS (default: runs/wheels), into a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD"
wheels=${WHEELS:-runs/wheels}

if [ "${1:-}" = --pack ]; then
    python=${PYTHON_VERSION:-3.12}
    mkdir -p "$wheels"
    python3 -m pip wheel --quiet --no-deps --wheel-dir "$wheels" deepspeed==0.19.8
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$wheels" \
        --python-version "$python" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 \
        hjson==3.1.0 pydantic==2.14.3 pydantic-core==2.50.4 annotated-types==0.8.0 \
        typing-inspection==0.4.5 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 \
        open_clip_torch==3.3.0 ftfy==6.3.1 wcwidth==0.9.4
    du -sh "$wheels"
    exit
fi

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$PWD:$site"
fi
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python3 -m benchmarks.gpu.pretrain "$@"
