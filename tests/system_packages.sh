#!/bin/sh
# The shells and the terminal that the tests use for real. Installs what is missing where it may; else says what to do.
missing=""
for tool in bash zsh fish tmux; do
  command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null && exit 0
fi
echo "error: the tests need$missing" >&2
echo >&2
echo "hint: install them with your system's package manager, then run make test again" >&2
exit 1
