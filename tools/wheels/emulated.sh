#!/bin/sh
# ARM64's wheel under an emulator: `sh tools/wheels/emulated.sh WHEEL [FOLDER]` runs `localinfer doctor` and the tests of
# the kernels with it, one in EVERY (1: all), as an emulator is slow. Needs root, debootstrap, qemu-user-static with its
# entry in binfmt_misc, and pip. FOLDER (build/wheels/arm64) keeps Debian's ARM64 files for the next time.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$1")
mkdir -p "${2:-$here/build/wheels/arm64}"
root=$(realpath "${2:-$here/build/wheels/arm64}")/root
if [ ! -e "$root/usr/bin/python3.13" ]; then # unpacked is enough: nothing there is ever configured or booted
  debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 trixie "$root"
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$root"; done
fi
# What the wheel asks for, as pip on such a machine would choose it; then the wheel itself, under whatever it was before.
set -- --only-binary=:all: --implementation cp --python-version 3.13 --abi cp313 --abi abi3 --abi none
for glibc in 2_17 2_27 2_28 2_31; do set -- "$@" --platform "manylinux_${glibc}_aarch64"; done
rm -rf "$root/opt/site" "$root/opt/run"
mkdir -p "$root/opt/run"
python3 -m pip install -q --no-warn-conflicts --target "$root/opt/site" "$@" "$wheel" pytest pytest-asyncio hypothesis
cp -r "$here/tests" "$here/pyproject.toml" "$root/opt/run/"
rm "$root/opt/run/tests/kernels/test_sources.py" # it reads the sources, on any machine
cat >"$root/opt/run/every.py" <<END
def pytest_collection_modifyitems(items):
    items[:] = items[:: ${EVERY:-10}]
END
emulated() {
  chroot "$root" env -i PATH=/usr/bin HOME=/opt/run LOCALINFER_HOME=/opt/home PYTHONPATH=/opt/site:/opt/run \
    PYTHONDONTWRITEBYTECODE=1 OPENBLAS_CORETYPE=ARMV8 sh -c 'cd /opt/run && exec python3.13 "$@"' sh "$@"
}
emulated -m localinfer doctor
# -W, OPENBLAS_CORETYPE: what the kernels are compared with comes out of NumPy's BLAS, whose SVE code the emulator gets
# wrong, and whose vector loads look like divisions by zero there.
emulated -m pytest -q -p no:cacheprovider -p every -W "ignore:.*encountered in matmul:RuntimeWarning" tests/kernels
