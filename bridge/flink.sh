#!/usr/bin/env bash
# Runs a pipeline on a real Flink on this machine: `make run`, `make flink-up`, `make flink-run`, `make flink-down`.
#
#   bridge/flink.sh embedded      Flink in one JVM, a sidecar beside it; ends when the input ends
#   bridge/flink.sh up            Kafka, a JobManager, a TaskManager and a sidecar, each a process of its own; they stay
#   bridge/flink.sh run           submits the pipeline there, sends its input, and shows what comes out
#   bridge/flink.sh down          ends what `up` has started
#
# PIPELINE, CONFIG   the pipeline and, for `up`, its overlay for Kafka (default: examples/quickstart)
# INPUT, TOPIC       for `run`: the lines of a file, and the topic that they go into
# FLINK_HOME         a Flink of your own for `up`; else it comes out of Maven's repository, like Kafka
# FLINK_PORT, RPC_PORT, KAFKA_PORT, CONTROLLER_PORT   where they listen (8081, 6123, 9092, 9093)
#
# FLINK_FOLDER       where `up` keeps everything, logs included (build/flink): one cluster each
#
# `embedded` writes into build/run. Processes are known by their ids in these folders, and ended by these alone.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BIN:-build/release}
jar=${JAR:-build/bridge/flink-bridge-0.1.0.jar}
pipeline=${PIPELINE:-examples/quickstart/pipeline.yaml}
config=${CONFIG:-examples/quickstart/config.yaml}
input=${INPUT:-examples/quickstart/events.jsonl}
topic=${TOPIC:-events}
home=${FLINK_FOLDER:-build/flink}
flink_port=${FLINK_PORT:-8081} rpc_port=${RPC_PORT:-6123} kafka_port=${KAFKA_PORT:-9092} controller_port=${CONTROLLER_PORT:-9093}
logging=-Dlog4j.configurationFile=$PWD/bridge/src/test/resources/log4j2-test.properties
mapfile -t flags < <(setup/jvm_flags.sh)
flags+=(--add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED)

if [ -z "${JAVA_HOME:-}" ]; then
	for jdk in /usr/lib/jvm/java-17-openjdk-*; do
		[ ! -x "$jdk/bin/java" ] || JAVA_HOME=$jdk
	done
fi
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

# Says what is wrong, and leaves.
fail() {
	echo "flink: $*" >&2
	exit 1
}

# The class path of tests and tools; Kafka is in it.
tools() { echo "build/bridge/test-classes:build/bridge/classes:$(<build/bridge/classpath)"; }

# The class path of a Flink cluster: without what the jar brings along, so that it has to.
cluster() {
	if [ -n "${FLINK_HOME:-}" ]; then
		compgen -G "$FLINK_HOME/lib/flink-dist-2.*.jar" >/dev/null ||
			fail "FLINK_HOME=$FLINK_HOME has no lib/flink-dist-2.*.jar, so it is no Flink 2"
		echo "$FLINK_HOME/lib/*"
	else
		tr : '\n' <build/bridge/classpath |
			grep -vE '/(org/apache/kafka|io/grpc|com/google|com/fasterxml|org/yaml|net/thisptr|net/openhft)/|flink-connector-kafka|junit|-tests[.]jar' |
			paste -sd:
	fi
}

# Where sockets lie: a path that is short enough for one, wherever this folder is.
sockets() {
	local folder
	folder=$(mktemp -d /tmp/flink-bridge.XXXXXX)
	echo "$folder"
}

# start NAME COMMAND...: in the background, with a log and an id under $home.
start() {
	local name=$1
	shift
	setsid "$@" </dev/null >"$home/log/$name.log" 2>&1 &
	echo "$! $(birth $!)" >"$home/pid/$name"
}

# When a process was born that has not ended: an id by itself may be another's by now.
birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# Whether a process that `up` started is there; $pid is its id then.
alive() {
	local born
	[ -s "$home/pid/$1" ] && read -r pid born <"$home/pid/$1" && [ -n "$born" ] && [ "$(birth "$pid")" = "$born" ]
}

# wait_for NAME WHAT COMMAND...: until the command succeeds; NAME's process must live that long.
wait_for() {
	local name=$1 what=$2 end=$((SECONDS + 120))
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ! alive "$name" || [ $SECONDS -gt $end ]; then
			tail -n 20 "$home/log/$name.log" >&2
			fail "$what did not start; its log is $home/log/$name.log"
		fi
		sleep 0.2
	done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The answer of Flink's REST interface to a GET. Fails when it does not come to its end in ten seconds.
rest() {
	local status=0
	exec 3<>"/dev/tcp/127.0.0.1/$flink_port" || return
	printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
	timeout 10 cat <&3 || status=$?
	exec 3>&-
	return $status
} 2>/dev/null

# How Flink runs the pipeline: $1 is the folder for checkpoints, $2 what happens after a failure.
settings() {
	cat <<-YAML
		flink:
		  checkpoint_interval: 1s
		  checkpoint_storage: "$(realpath -m "$1")/checkpoints"
		  checkpoint_retention: delete
		  restart: $2
	YAML
}

# The first lines of what a file sink wrote: finished parts in a folder of its name.
show_files() {
	local folder
	for folder in "$1"/*.jsonl; do
		[ -d "$folder" ] || continue
		echo
		echo "$folder: $(find "$folder" -type f ! -name '.*' -exec cat {} + | wc -l) lines, the first of them:"
		# To the end: whoever is cut short ends with an error.
		find "$folder" -type f ! -name '.*' | sort | xargs -r cat | awk 'NR <= 2 { print substr($0, 1, 200) }'
	done
}

embedded() {
	local run=build/run folder sidecar
	rm -rf $run && mkdir -p $run
	folder=$(sockets)
	OUT=$run "$bin/bridgectl" compile "$pipeline" -o $run/descriptor.yaml
	settings $run none >$run/config.yaml
	echo "  FLINK runs $pipeline, a sidecar with 2 slots beside it"
	"$bin/bridged" --descriptor $run/descriptor.yaml --slots 2 --listen "unix:$folder/front.sock" --stats "$folder/stats.sock" --log-level warn &
	sidecar=$!
	# shellcheck disable=SC2064 # these values
	trap "kill $sidecar 2>/dev/null; wait $sidecar || true; rm -rf $folder" EXIT
	"$java" -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "$logging" -Dbridge.log=error "${flags[@]}" -cp "$jar:$(cluster)" io.flinkbridge.Main \
		--descriptor $run/descriptor.yaml --config $run/config.yaml --sidecar "unix:$folder/front.sock" || fail "the job failed"
	show_files $run
}

# Ports that are taken already are told apart from ours.
check_ports() {
	local port variable
	for variable in FLINK_PORT:$flink_port RPC_PORT:$rpc_port KAFKA_PORT:$kafka_port CONTROLLER_PORT:$controller_port; do
		port=${variable#*:}
		! listens "$port" || fail "port $port is taken; choose another with ${variable%:*}=... (or is it an earlier \`make flink-up\`? \`make flink-down\` ends it)"
	done
}

# What both Flink processes read. Sizes are explicit, as nothing computes them for processes that are started like this.
write_flink_conf() {
	mkdir -p "$home/conf"
	cat >"$home/conf/config.yaml" <<-CONF
		jobmanager.rpc.address: 127.0.0.1
		jobmanager.rpc.port: $rpc_port
		jobmanager.bind-host: 127.0.0.1
		rest.address: 127.0.0.1
		rest.bind-address: 127.0.0.1
		rest.port: $flink_port
		taskmanager.host: 127.0.0.1
		taskmanager.bind-host: 127.0.0.1
		taskmanager.resource-id: taskmanager
		taskmanager.numberOfTaskSlots: 4
		taskmanager.cpu.cores: 4
		taskmanager.memory.framework.heap.size: 128m
		taskmanager.memory.framework.off-heap.size: 64m
		taskmanager.memory.task.heap.size: 256m
		taskmanager.memory.task.off-heap.size: 64m
		taskmanager.memory.network.min: 64m
		taskmanager.memory.network.max: 64m
		taskmanager.memory.managed.size: 128m
		taskmanager.memory.jvm-metaspace.size: 256m
		taskmanager.memory.jvm-overhead.min: 64m
		taskmanager.memory.jvm-overhead.max: 64m
		execution.checkpointing.dir: file://$(realpath -m "$home")/checkpoints
		execution.checkpointing.savepoint-dir: file://$(realpath -m "$home")/savepoints
		io.tmp.dirs: $(realpath -m "$home")/tmp
		web.submit.enable: false
		classloader.check-leaked-classloader: false
	CONF
}

up() {
	! alive jobmanager || fail "it is up already: http://127.0.0.1:$flink_port (\`make flink-down\` ends it)"
	down
	[ -d "$home/pid" ] || [ ! -e "$home" ] || rmdir "$home" 2>/dev/null ||
		fail "FLINK_FOLDER=$home is not empty, and not of an earlier cluster"
	check_ports
	local flink folder topics
	flink=$(cluster)
	rm -rf "$home" && mkdir -p "$home"/{log,pid,tmp}
	write_flink_conf
	settings "$home" exponential_delay >"$home/job.yaml"
	folder=$(sockets)
	echo "$folder" >"$home/sockets"

	echo "  START Kafka at 127.0.0.1:$kafka_port, Flink at 127.0.0.1:$flink_port, a sidecar with 4 slots"
	start kafka "$java" -Xmx256m -XX:+UseSerialGC "$logging" "${flags[@]}" -cp "$(tools)" io.flinkbridge.testing.KafkaBroker serve "$home/kafka" "$kafka_port" "$controller_port"
	start jobmanager "$java" -Xmx384m -XX:+UseSerialGC "$logging" -Dbridge.log=info "${flags[@]}" -cp "$flink" \
		org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$home/conf"
	start taskmanager "$java" -Xmx384m -XX:MaxDirectMemorySize=192m -XX:MaxMetaspaceSize=256m -XX:+UseSerialGC "$logging" -Dbridge.log=info "${flags[@]}" \
		-cp "$flink" org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$home/conf"

	KAFKA=127.0.0.1:$kafka_port OUT=$(realpath -m "$home")/out "$bin/bridgectl" compile "$pipeline" --config "$config" -o "$home/descriptor.yaml"
	start sidecar "$bin/bridged" --descriptor "$home/descriptor.yaml" --slots 4 --listen "unix:$folder/front.sock" --stats "$folder/stats.sock"
	mapfile -t topics < <(list_topics)
	wait_for kafka "Kafka" listens "$kafka_port"
	"$java" -cp "$(tools)" io.flinkbridge.testing.KafkaTool "127.0.0.1:$kafka_port" create 4 "${topics[@]}"
	wait_for sidecar "the sidecar" "$bin/bridgectl" health --stats "$folder/stats.sock"
	wait_for taskmanager "Flink" has_slots
	cat <<-SAID
		  Flink's web UI    http://127.0.0.1:$flink_port
		  Kafka             127.0.0.1:$kafka_port, topics ${topics[*]}
		  the sidecar       $bin/bridgectl slots --watch --stats $folder/stats.sock
		  logs              $home/log
		  next              make flink-run, again and again; make flink-down
	SAID
}

# Whether the TaskManager has offered its slots.
has_slots() { rest /overview | grep '"slots-total":4'; }

# The topics of the pipeline.
list_topics() { sed -n 's/^ *stream_name: "\(.*\)"$/\1/p' "$home/descriptor.yaml" | sort -u; }

# The job's id, if it runs. Fails when Flink does not say.
job() { rest /jobs/overview | tr '{' '\n' | sed -n 's/.*"jid":"\([0-9a-f]*\)".*"state":"\(RUNNING\|CREATED\|RESTARTING\)".*/\1/p' | awk 'NR == 1'; }

run() {
	local running name out
	for name in kafka jobmanager taskmanager sidecar; do
		alive $name || fail "it is not up ($name is missing): \`make flink-up\` first"
	done
	running=$(job) || fail "Flink does not answer at 127.0.0.1:$flink_port; its log is $home/log/jobmanager.log"
	if [ -z "$running" ]; then
		FLINK_CONF_DIR="$home/conf" "$java" -Xmx256m "$logging" "${flags[@]}" -cp "$(cluster)" org.apache.flink.client.cli.CliFrontend \
			run -d "$jar" --descriptor "$home/descriptor.yaml" --config "$home/job.yaml" --sidecar "unix:$(<"$home/sockets")/front.sock" >"$home/log/submit.log" 2>&1 ||
			{ cat "$home/log/submit.log" >&2; fail "the job was not taken"; }
		running=$(job)
	fi
	echo "  the job           http://127.0.0.1:$flink_port/#/job/running/$running/overview"
	"$java" -cp "$(tools)" io.flinkbridge.testing.KafkaTool "127.0.0.1:$kafka_port" send "$topic" "$input"
	for out in $(list_topics); do
		[ "$out" = "$topic" ] || "$java" -cp "$(tools)" io.flinkbridge.testing.KafkaTool "127.0.0.1:$kafka_port" read "$out" 2 6
	done
	show_files "$home/out"
}

down() {
	local name pid folder ended=
	for name in sidecar taskmanager jobmanager kafka; do
		if alive $name; then
			kill "$pid" 2>/dev/null || true # it may end by itself meanwhile
			for _ in $(seq 100); do alive $name || break; sleep 0.1; done
			! alive $name || kill -KILL "$pid" 2>/dev/null || true
			echo "  ENDED $name"
			ended=yes
		fi
		rm -f "$home/pid/$name"
	done
	if [ -s "$home/sockets" ]; then
		folder=$(<"$home/sockets")
		case "$folder" in /tmp/flink-bridge.*) rm -rf "$folder" ;; esac
		rm -f "$home/sockets"
	fi
	[ -n "$ended" ] || [ "${FUNCNAME[1]}" = up ] || echo "  nothing was up"
}

case "${1:-}" in
embedded | up | run | down) "$1" ;;
*) sed -n '2,16p' "$0" >&2; exit 2 ;;
esac
