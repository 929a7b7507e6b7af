#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# `make test-interop`: makes a virtual environment from PyPI outside the tree, and lets PyTorch, transformers, gguf and llama.cpp prove
# that models open there and here. $1: the build folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=$(realpath "$1")
cache=${INTEROP_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bitbyte-interop} # 6 GB, most of it PyTorch
seconds=${INTEROP_LLAMA_SECONDS:-900}                                 # in which llama.cpp must build, on one core
export INTEROP_BUILD=$build PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$cache"
[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
python=$cache/venv/bin/python
"$python" -c 'import torch, transformers, accelerate, safetensors, gguf' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check torch transformers accelerate safetensors gguf numpy
"$python" -c 'import bitsandbytes, galore_torch' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check bitsandbytes galore-torch || true # without them their check is skipped
if ! "$python" -c 'import llama_cpp' 2>/dev/null && [ ! -e "$cache/no_llama_cpp" ]; then
    echo "building llama.cpp from llama-cpp-python's sources, for at most $seconds s; log: $cache/llama_cpp.log"
    CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-1} CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF" \
        timeout "$seconds" "$python" -m pip install --disable-pip-version-check --no-binary llama-cpp-python llama-cpp-python \
        >"$cache/llama_cpp.log" 2>&1 || touch "$cache/no_llama_cpp"
fi
"$python" - <<'TEXT'
import importlib.metadata as m
print("with", ", ".join(f"{p} {m.version(p)}" for p in ("torch", "transformers", "safetensors", "gguf", "bitsandbytes", "galore-torch", "llama-cpp-python") if
                        p in {d.metadata["Name"].replace("_", "-") for d in m.distributions()}))
TEXT

"$python" -c 'import tensorboard, openai, prometheus_client' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check tensorboard 'setuptools<81' openai prometheus_client

# Two models that know a little: with the int8 inputs of linear layers, and without.
cat README.md docs/*.md src/*/*.[ch] | LC_ALL=C tr -cd '\n\t -~' >"$work/all"
head -c 400000 "$work/all" >"$work/train" && tail -c 40000 "$work/all" >"$work/held_out"
for options in "" --no_act_quant; do
    # shellcheck disable=SC2086
    "$build/bitbyte" train --data "$work/train" --out "$work/run$options" --n_layer 2 --d_model 256 --n_head 4 --n_kv_head 2 --d_ff 512 \
        --seq_len 256 --batch_size 4 --grad_accum 1 --steps 600 --save_every 600 --lr 2e-3 $options >"$work/train.log" 2>&1 ||
        { tail "$work/train.log"; exit 1; }
    "$build/bitbyte" convert "$work/run$options" "$work/model$options.safetensors" >/dev/null
done
model=$work/model.safetensors plain=$work/model--no_act_quant.safetensors

failed=0
check() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    "$python" "tests/interop/$name" "$@" "$work/$name" 2>"$work/err" || { tail -n 5 "$work/err"; failed=1; }
}
check check_torch.py "$model" "$work/held_out"
check check_hf.py "$model"
check check_gguf.py "$model"
if "$python" -c 'import bitsandbytes, galore_torch' 2>/dev/null; then
    check check_optimizers.py "$model" "$work/held_out"
else
    echo "SKIPPED: checkpoints with the optimizers of bitsandbytes and GaLore: the packages bitsandbytes and galore-torch cannot be imported"
fi
check check_tensorboard.py "$work/held_out"
check check_openai.py "$model"
page=0 # in chromium; 77: it is not there
bash tests/test_page.sh "$build/bitbyte" "$build" || page=$?
[ "$page" = 0 ] || [ "$page" = 77 ] || failed=1
if "$python" -c 'import llama_cpp' 2>/dev/null; then
    check check_llama_cpp.py "$model" "$plain"
else
    echo "SKIPPED: llama.cpp, which did not build within $seconds s: see $cache/llama_cpp.log; remove $cache/no_llama_cpp to try again"
fi
if [ -n "${INTEROP_ORIGINAL:-}" ]; then
    "$build/bitbyte" convert "$model" "$work/original.safetensors" --to safetensors >/dev/null
    "$python" examples/load_in_pytorch.py "$INTEROP_ORIGINAL" "$work/original.safetensors" >"$work/out" 2>"$work/err" &&
        echo "ok: the PyTorch original itself, load_state_dict(strict=True): $(cat "$work/out")" || { tail -n 5 "$work/err"; failed=1; }
else
    echo "SKIPPED: the PyTorch original itself: set INTEROP_ORIGINAL to its folder"
fi
exit $failed
