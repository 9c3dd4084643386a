#!/usr/bin/env bash
# Prints flags that every JVM of this project's wants on this machine: one per line, often none.
#
# Flink asks for the address of the machine's own name, and ends where nothing knows that name, as in many a container. Then, and only
# then, Java gets a file of hosts that has it, in build/.
set -euo pipefail
cd "$(dirname "$0")/.."

name=$(uname -n)
if ! getent hosts "$name" >/dev/null; then
	mkdir -p build
	printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >build/hosts
	echo "-Djdk.net.hosts.file=$PWD/build/hosts"
fi
