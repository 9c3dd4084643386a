#!/usr/bin/env bash
# Installs what is missing of setup/packages.txt on Debian or Ubuntu.
#
#   setup/install.sh [--check] GROUP        GROUP: build, flink, test or lint (each includes the groups before it)
#
# --check only looks. As root, or with sudo (without a password, or on a terminal where it can ask for one), the missing packages
# are installed; otherwise the exact command is printed. Exit status: 0 all there, 1 apt failed, 2 something is missing or misused.
set -euo pipefail

list=$(dirname "$0")/packages.txt
check=
[ "${1:-}" = --check ] && { check=1; shift; }
case "${1:-}" in
build) groups=" build " ;;
flink) groups=" build flink " ;;
test) groups=" build flink test " ;;
lint) groups=" build flink test lint " ;;
*) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac

# The packages of the groups, one a line.
wanted() {
	while read -r package group _; do
		case "$package" in '' | '#'*) continue ;; esac
		case "$groups" in *" $group "*) echo "$package" ;; esac
	done <"$list"
}

# The major version of clang: of the installed one, else of the one that apt would install; empty when apt has no lists yet.
clang_major() {
	local version
	version=$(dpkg-query -W -f '${Version}' clang 2>/dev/null || true)
	[ -n "$version" ] || version=$(apt-cache policy clang 2>/dev/null | sed -n 's/^  Candidate: //p')
	sed -n 's/^[0-9]*:\{0,1\}\([0-9]*\)[.].*/\1/p' <<<"$version"
}

# Those that are not installed.
missing() {
	local installed clang package
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
	clang=$(clang_major)
	for package in $(wanted); do
		package=${package//@clang@/$clang}
		grep -qxF "$package" <<<"$installed" || echo "$package"
	done
}

if ! command -v dpkg-query >/dev/null; then
	echo "setup: this is neither Debian nor Ubuntu; install what stands in setup/packages.txt your way, then add SETUP=no to make" >&2
	exit 2
fi

packages=$(missing | tr '\n' ' ')
[ -n "${packages// /}" ] || exit 0
if [ -n "$check" ]; then
	echo "setup: missing: $packages" >&2
	echo "setup: \`make setup\` installs all that this project uses" >&2
	exit 2
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		as_root=sudo
	else
		echo "setup: these packages are missing and only root can install them. Run this, then the same make again:" >&2
		echo "  apt-get update && apt-get install -y --no-install-recommends $packages" >&2
		exit 2
	fi
fi
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get"
echo "setup: reading the package lists"
$apt update -qq || { echo "setup: apt-get update failed (see above); is the network there?" >&2; exit 1; }
packages=$(missing | tr '\n' ' ') # once more: the lists may have been what told clang's version
echo "setup: installing $packages"
# shellcheck disable=SC2086 # words on purpose
$apt install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $packages >/dev/null ||
	{ echo "setup: apt-get install failed (see above)" >&2; exit 1; }
echo "setup: done"
