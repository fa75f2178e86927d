#!/bin/sh
# How does Unsloth run on a machine without a GPU? In a virtual environment of its own, with a CPU build of torch:
#
#     scripts/unsloth_cpu_env.sh FOLDER
#
# makes FOLDER/bin/python (about 1.5 GB), with uv. What is there already is kept, if it is of these versions.
# UV_FIND_LINKS may name a folder with a CPU build of torch; else it comes from PyTorch's own index.
set -eu
export UV_NO_CONFIG=1 # our own pyproject.toml keeps torch out of every environment

# Made with `uv pip compile --excludes scripts/unsloth_cpu_excludes.txt`, of `unsloth>=2026.10,<2027`: without
# triton and xformers, which are for GPUs, and torchvision, whose build for CUDA a CPU build of torch cannot load.
VERSIONS="$(dirname "$0")/unsloth_cpu.txt"
TORCH=2.13.0
FOLDER=${1:?a folder for the environment}

if [ -x "$FOLDER/bin/python" ] && cat "$0" "$VERSIONS" | cmp -s - "$FOLDER/complete"; then
    echo "$FOLDER is there already"
    exit 0
fi

PATH="$PATH:$(dirname "$0")/../.cache/tools/bin" # where `make setup` puts uv if there is none
if ! command -v uv >/dev/null; then
    echo "uv is needed: see https://docs.astral.sh/uv, or run \`make setup\`" >&2
    exit 1
fi

uv venv --quiet --clear --python "${PYTHON:-3.11}" "$FOLDER"
if [ -n "${UV_FIND_LINKS:-}" ]; then
    uv pip install --quiet --python "$FOLDER/bin/python" "torch==$TORCH+cpu"
else
    uv pip install --quiet --python "$FOLDER/bin/python" --torch-backend cpu "torch==$TORCH"
fi
uv pip install --quiet --python "$FOLDER/bin/python" --no-deps -r "$VERSIONS"
cat "$0" "$VERSIONS" >"$FOLDER/complete" # what it was made of
echo "$FOLDER is ready"
