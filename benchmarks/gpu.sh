#!/usr/bin/env bash
# Everything here that a GPU can tell, in one run of less than eight minutes of one H100 or the like.
#
#     benchmarks/gpu.sh [--rehearse] [--output DIR] [--wheels DIR] [--seconds N]
#
# Needs this checkout, and a `python3` (or $PYTHON) with a torch that sees the GPU and a C++ compiler beside it. What
# copgen needs and that Python lacks is installed, without a network, from the wheels in DIR (default: .whl in the
# checkout) into a folder of its own. They are fetched before, where there is a network, for the Python and the C library
# of the machine with the GPU:
#
#     python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#         --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .whl \
#         diffusers lmdb rasterio affine cligj pydantic pydantic-core annotated-types typing-inspection \
#         pydantic-settings python-dotenv typer filelock hypothesis
#
# Results are written after every part, into DIR (default: $OUT, else gpu-results): results.json, results.md, log.txt.
# --rehearse runs all of it on the CPU, in tiny sizes, and may take longer. --seconds is the time for all parts
# (default: 450; of a rehearsal 2400).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
output=${OUT:-gpu-results}
wheels=$root/.whl
rest=()
while (($#)); do
    case $1 in
        --output) output=$2; shift 2 ;;
        --wheels) wheels=$2; shift 2 ;;
        --seconds) rest+=("$1" "$2"); shift 2 ;;
        --rehearse) rest+=("$1"); shift ;;
        *) echo "gpu.sh: unknown option $1; the head of this file tells what there is" >&2; exit 2 ;;
    esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$work/site:$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export HF_HUB_OFFLINE=1 TORCHINDUCTOR_CACHE_DIR=$work/inductor
if compgen -G "$wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" "$wheels"/*.whl
fi
"$python" "$root/benchmarks/gpu.py" --output "$output" --work "$work" ${rest[@]+"${rest[@]}"}
