#!/bin/sh
# ARM64's wheel under an emulator: `sh tools/wheels/emulated.sh WHEEL [FOLDER]` runs `localinfer doctor` and the tests of
# the kernels with it. Needs debootstrap, qemu-user-static, pip, and the right to run debootstrap; about ten minutes.
# FOLDER (build/wheels/arm64) keeps Debian's ARM64 files and the packages for the next time.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$1")
mkdir -p "${2:-$here/build/wheels/arm64}"
room=$(realpath "${2:-$here/build/wheels/arm64}")
root="$room/root" site="$room/site"
if [ ! -e "$root/usr/bin/python3.13" ]; then # unpacked is enough: nothing there is ever configured or booted
  debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 trixie "$root"
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$root"; done
fi
# What the wheel asks for, as pip on such a machine would choose it; then the wheel itself, under whatever it was before.
set -- --only-binary=:all: --implementation cp --python-version 3.13 --abi cp313 --abi abi3 --abi none
for glibc in 2_17 2_27 2_28 2_31; do set -- "$@" --platform "manylinux_${glibc}_aarch64"; done
rm -rf "$site"
python3 -m pip install -q --target "$site" "$@" "$wheel" pytest pytest-asyncio hypothesis
mkdir -p "$room/run"
cp -r "$here/tests" "$here/pyproject.toml" "$room/run/"
emulated() { qemu-aarch64-static -L "$root" "$root/usr/bin/python3.13" "$@"; }
export PYTHONPATH="$site" LOCALINFER_HOME="$room/home" PYTHONDONTWRITEBYTECODE=1
cd "$room/run"
emulated -m localinfer doctor
emulated -m pytest -q -p no:cacheprovider tests/kernels
