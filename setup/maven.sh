#!/usr/bin/env bash
# Runs Maven on bridge/pom.xml, quietly: what it downloads is counted, what it says is shown when it fails.
#
#   setup/maven.sh NAME ARGUMENT...         e.g. setup/maven.sh package package -DskipTests
#
# NAME is what the run is called: its log is build/bridge/NAME.log, and once a run has gone well, build/setup/maven-NAME.ok says that all it
# needs is on this machine: until pom.xml changes the next one works offline. JAVA_HOME is the JDK; Debian's JDK 17 where it is not set.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
[ $# -ge 2 ] || { sed -n '2,7p' "$0" >&2; exit 2; }
name=$1
shift
stamp=build/setup/maven-$name.ok
log=build/bridge/$name.log
mkdir -p build/setup build/bridge

if [ -z "${JAVA_HOME:-}" ]; then
	for jdk in /usr/lib/jvm/java-17-openjdk-*/bin/javac; do
		[ ! -x "$jdk" ] || export JAVA_HOME=${jdk%/bin/javac}
	done
fi

# Maven's output into the log; a line for every hundred files that came, and one before the first.
run() {
	mvn -B -f bridge/pom.xml "$@" 2>&1 | tee "$log" | awk '
		/Downloading from / && !begun { begun = 1; print "  MAVEN downloads what the Flink application needs, once"; fflush() }
		/Downloaded from / && ++count % 100 == 0 { print "  MAVEN " count " files"; fflush() }'
}

# What went wrong, without what Maven says about itself, and without warnings where there are errors.
explain() {
	local words='^\[ERROR\]|^Caused by'
	grep -qE "$words" "$log" || words='^\[WARNING\]'
	grep -E "$words" "$log" | grep -vE 'Re-run Maven|To see the full stack trace|For more information|\[Help|^\[ERROR\] *$' | head -60 >&2
	echo "maven: \`mvn $*\` failed; all it said is in $log" >&2
}

offline=
[ ! "$stamp" -nt bridge/pom.xml ] || offline=-o
run ${offline:+"$offline"} "$@" && { touch "$stamp"; exit 0; }
# Somebody has emptied Maven's repository since.
if [ -n "$offline" ] && grep -q 'in offline mode' "$log"; then
	run "$@" && { touch "$stamp"; exit 0; }
fi
explain "$@"
exit 1
