#!/bin/sh
# The shells and the terminal that the tests use for real, the compiler and the emulator of the ARM tests, and clang.
# Installs what is missing where it may; else says what to do. Without compilers their tests are skipped, and say so.
lacking() {
  for tool in "$@"; do
    command -v "$tool" >/dev/null 2>&1 || printf ' %s' "$tool"
  done
}
install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}
if [ -n "$(lacking aarch64-linux-gnu-g++ qemu-aarch64 cmake ninja)" ]; then
  install g++-aarch64-linux-gnu qemu-user cmake ninja-build ||
    echo "note: the ARM tests are skipped: they need$(lacking aarch64-linux-gnu-g++ qemu-aarch64 cmake ninja)" >&2
fi
if [ -n "$(lacking clang++)" ]; then
  install --no-install-recommends clang || echo "note: nothing is compiled with clang: it is not installed" >&2
fi
missing=$(lacking bash zsh fish tmux)
[ -z "$missing" ] && exit 0
install $missing && exit 0
echo "error: the tests need$missing" >&2
echo >&2
echo "hint: install them with your system's package manager, then run make test again" >&2
exit 1
