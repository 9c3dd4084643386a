"""The processes of a real bridged: each is killed, stopped, refused its socket, and told to leave; and it is asked how it is meanwhile."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest
import raw_http2

from conftest import BRIDGED, PATIENCE, alive, descendants, free_port, wait_until

# "n1000000" keeps the worker counting for a while; anything else comes back in capitals.
PIPELINE = """\
name: shout
sources:
  in: { kind: generator, count: 1 }
steps:
  - name: shout
    kind: map
    payload: text
    program: 'if startswith("n") then (.[1:] | tonumber) as $n | last(range($n)) | tostring else ascii_upcase end'
sinks:
  out: { kind: discard }
"""
LONG = b"n4000000000"  # hours
SHORT = b"n1500000"  # long enough to be seen at work


def slot(sidecar, index):
    return sidecar.stats_json("slots")["slots"][index]


def counters(sidecar):
    return sidecar.stats_json("stats")["supervisor"]


def healthy(sidecar):
    return sidecar.stats_json("health")["healthy"]


def front_pid(sidecar):
    return next(p["pid"] for p in sidecar.stats_json("health")["processes"] if p["process"] == "front")


def run(*flags, timeout=PATIENCE):
    """A bridged that is to end by itself; its exit code, output and errors."""
    done = subprocess.run([str(BRIDGED), *map(str, flags)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


class InFlight:
    """A call that is at work in a worker. A short one may be over before that is seen, on a busy machine: then another is made."""

    def __init__(self, sidecar, client, payload, index=0):
        request = client.proto.worker.ProcessMessageRequest(message=client.proto.worker.Message(payload=payload), segment_id=0)

        def is_at_work():
            if self.future.done():
                assert self.future.code() == grpc.StatusCode.OK, self.future.code()
                self.future = client.worker.ProcessMessage.future(request, timeout=PATIENCE * 2, metadata=metadata)
            return slot(sidecar, index)["busy_ns"] > 0

        metadata = (("bridge-slot", str(index)),)
        self.future = client.worker.ProcessMessage.future(request, timeout=PATIENCE * 2, metadata=metadata)
        wait_until(is_at_work, "the call to be at work")

    def status(self):
        with contextlib.suppress(grpc.RpcError):
            self.future.result(timeout=PATIENCE)
        return self.future.code()


# ---- Deaths ------------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_taken_over_from_and_its_calls_are_answered(bridged, client):
    sidecar = bridged(PIPELINE, slots=2)
    hurt, other = client(sidecar.unix, metadata=[("bridge-slot", "0")]), client(sidecar.tcp, metadata=[("bridge-slot", "1")])
    before = [slot(sidecar, 0)["pid"], slot(sidecar, 1)["pid"], front_pid(sidecar)]
    call = InFlight(sidecar, hurt, SHORT, 0)
    os.kill(before[0], signal.SIGKILL)
    assert other.process(0, b"fine")[0].payload == b"FINE"
    assert call.status() == grpc.StatusCode.OK
    assert hurt.process(0, b"back")[0].payload == b"BACK"
    wait_until(lambda: slot(sidecar, 0)["last_death"] == "signal 9 (Killed)", "its end to be noted")
    after = [slot(sidecar, 0)["pid"], slot(sidecar, 1)["pid"], front_pid(sidecar)]
    assert after[0] != before[0] and after[1:] == before[1:]
    assert slot(sidecar, 0)["generation"] == 1
    assert counters(sidecar)["takeovers"] == 1 and counters(sidecar)["deaths_blamed"] == 0
    sidecar.wait_for_log(r'worker 0 \(pid \d+, process 1\) died of signal 9 \(Killed\) .* segment "\w+", step "shout", seq \d+, record 0')


def test_a_worker_that_hangs_harms_no_other_slot(bridged, client):
    """More calls than the front holds at once are given up by their callers: the front must not keep their places."""
    sidecar = bridged(PIPELINE, slots=2, flags=["--restart-delay", "1ms"])
    hung, other = client(sidecar.unix, metadata=[("bridge-slot", "0")]), client(sidecar.tcp, metadata=[("bridge-slot", "1")])
    call = InFlight(sidecar, hung, LONG, 0)
    request = hung.proto.worker.ProcessMessageRequest(message=hung.proto.worker.Message(payload=b"x"), segment_id=0)
    given_up = [hung.worker.ProcessMessage.future(request, timeout=0.5, metadata=hung.metadata) for _ in range(4500)]
    assert {future.exception(PATIENCE).code() for future in given_up} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert other.process(0, b"fine")[0].payload == b"FINE"
    assert not call.future.done()
    killed = []
    for _ in range(2):  # the second one is careful: then the call is to blame
        killed.append(wait_until(lambda: (row := slot(sidecar, 0))["busy_ns"] > 0 and row["pid"] not in killed and row["pid"], "it to be at work"))
        os.kill(killed[-1], signal.SIGABRT)
    assert call.status() == grpc.StatusCode.INTERNAL
    assert hung.process(0, b"back")[0].payload == b"BACK"
    wait_until(lambda: sidecar.stats_json("stats")["front"]["unary_in_flight"] == 0, "the places to be free")


def test_a_killed_worker_ends_no_session(bridged, client):
    sidecar = bridged(PIPELINE, slots=2)
    hurt = client(sidecar.unix).session(sidecar, allocation_id="one")
    other = client(sidecar.unix).session(sidecar, allocation_id="two", subtask=1, parallelism=2)
    assert hurt.exchange(b"a") == [b"A"] and other.exchange(b"b") == [b"B"]
    dead = slot(sidecar, hurt.ack.open_ack.slot)["pid"]
    os.kill(dead, signal.SIGKILL)
    assert hurt.exchange(b"c") == [b"C"] and other.exchange(b"d") == [b"D"]
    wait_until(lambda: slot(sidecar, hurt.ack.open_ack.slot)["pid"] not in (0, dead), "another owner to be noted")
    assert hurt.finish()[0] == other.finish()[0] == grpc.StatusCode.OK


def test_a_killed_front_is_replaced_and_the_workers_stay(bridged, client):
    sidecar = bridged(PIPELINE, slots=2)
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"a") == [b"A"]
    workers = [slot(sidecar, i)["pid"] for i in range(2)]
    front = front_pid(sidecar)
    os.kill(front, signal.SIGKILL)
    assert session.end()[0] == grpc.StatusCode.UNAVAILABLE
    wait_until(lambda: front_pid(sidecar) != front and healthy(sidecar), "a new front to serve")
    assert [slot(sidecar, i)["pid"] for i in range(2)] == workers
    for address in (sidecar.unix, sidecar.tcp):
        again = client(address).session(sidecar)
        assert again.exchange(b"b", b"c") == [b"B", b"C"]
        assert again.finish()[0] == grpc.StatusCode.OK
    assert counters(sidecar)["front_restarts"] == 1


def test_nothing_outlives_a_killed_supervisor_and_the_next_one_tidies_up(bridged, client):
    sidecar = bridged(PIPELINE, slots=2)
    sidecar.wait_until_whole()
    children = descendants(sidecar.pid)
    assert len(children) == 5
    sidecar.process.kill()
    sidecar.process.wait()
    wait_until(lambda: not any(map(alive, children)), "the children to be gone")
    left = sidecar.files() - sidecar.before
    assert {"s", "s.lock", "stats", "stats.lock"} <= left
    again = subprocess.Popen(sidecar.command, stdin=subprocess.DEVNULL, stderr=open(sidecar.log_path, "ab"))
    sidecar.process, sidecar.pid = again, again.pid  # the fixture stops it
    sidecar.wait_for_log(f"removed the stale socket {sidecar.folder}/s")
    wait_until(lambda: sidecar.log().count("serving pipeline") == 2, "the second one to serve")
    assert client(sidecar.unix).process(0, b"x")[0].payload == b"X"


# ---- Starts that cannot succeed ----------------------------------------------------------------------------------------


def test_a_tcp_port_in_use_is_named(compile, workdir):
    descriptor = compile(PIPELINE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, log = run("--descriptor", descriptor, "--listen", f":{port}", "--listen", f"unix:{workdir}/s", "--stats", f"{workdir}/st")
    assert code == 1, log
    assert f"127.0.0.1:{port}" in log and "cannot start" in log
    assert {entry.name for entry in workdir.iterdir()}.isdisjoint({"s", "s.lock", "st", "st.lock"})


def test_two_sidecars_never_share_a_port(bridged, compile):
    sidecar = bridged(PIPELINE)
    code, _, log = run("--descriptor", sidecar.descriptor_path, "--listen", sidecar.tcp)
    assert code == 1 and sidecar.tcp in log


@pytest.mark.parametrize("which", ["s", "stats"])
def test_a_live_unix_socket_is_refused_and_left_alone(bridged, client, which):
    sidecar = bridged(PIPELINE)
    other = sidecar.folder / "other"
    flags = ["--listen", f"unix:{sidecar.folder}/s"] if which == "s" else ["--listen", f"unix:{other}", "--stats", sidecar.stats_path]
    code, _, log = run("--descriptor", sidecar.descriptor_path, *flags)
    assert code == 1
    assert f"unix:{sidecar.folder}/{which} is served by another bridged, process {sidecar.pid}" in log
    assert not other.exists()
    assert client(sidecar.unix).process(0, b"still")[0].payload == b"STILL"
    assert healthy(sidecar)


def test_a_socket_of_another_program_is_refused(compile, workdir):
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(f"{workdir}/s")
        live.listen()
        code, _, log = run("--descriptor", compile(PIPELINE), "--listen", f"unix:{workdir}/s")
    assert code == 1 and "another program is listening there" in log
    assert (workdir / "s").exists()


@pytest.mark.parametrize("slots", ["0", "10000", "129", "-1", "four", ""])
def test_numbers_of_slots_that_cannot_be(compile, slots):
    code, _, log = run("--descriptor", compile(PIPELINE), "--listen", ":1", "--slots", slots)
    assert code == 2
    assert log.startswith("bridged: --slots: ")
    assert "from 1 to 128" in log or "is not a number" in log


def test_a_program_that_does_not_compile_ends_the_start(bridged, workdir):
    """The compiler of pipelines refuses such a program, so it is written into the descriptor by hand."""
    good = bridged(PIPELINE)
    broken = workdir / "broken.yaml"
    broken.write_text(good.descriptor_path.read_text().replace("ascii_upcase", "no_such_function"))
    assert broken.read_text() != good.descriptor_path.read_text()
    for flags, expected in ((["--check"], 1), ([], 1)):
        code, _, log = run("--descriptor", broken, "--listen", f"unix:{workdir}/s", *flags)
        assert code == expected, log
        assert "no_such_function" in log and "shout" in log
    assert not (workdir / "s").exists()


def test_a_descriptor_that_is_none(workdir):
    (workdir / "d.yaml").write_text("sources: [\n")
    code, _, log = run("--descriptor", workdir / "d.yaml", "--listen", f"unix:{workdir}/s")
    assert code == 1 and f"{workdir}/d.yaml:" in log
    code, _, log = run("--descriptor", workdir / "none.yaml", "--listen", f"unix:{workdir}/s")
    assert code == 1 and "none.yaml" in log


def test_wrong_flags_are_all_told_at_once():
    code, _, log = run("--slosts", "4", "--listen", "nowhere", "--session-ring", "3MiB")
    assert code == 2
    for part in ("did you mean --slots?", "unix:/path or host:port", "not a power of two; say 4MiB", "which pipeline?"):
        assert part in log


def test_a_configuration_file_is_read_and_located(bridged, workdir):
    config = workdir / "sidecar.yaml"
    config.write_text("steps:\n  shout: {}\nsidecar:\n  message-max: 64KiB\n  drain-timeout: 3s\n")
    sidecar = bridged(PIPELINE, flags=["--config", config])
    flags = {row["flag"]: row for row in sidecar.stats_json("config")["flags"]}
    assert flags["message-max"] == {"flag": "message-max", "value": "64KiB", "from": f"{config}:4"}
    assert flags["session-ring"]["value"] == "512KiB"
    config.write_text("sidecar:\n  mesage-max: 64KiB\n")
    code, _, log = run("--descriptor", sidecar.descriptor_path, "--listen", ":1", "--config", config)
    assert code == 2 and f'{config}:2:3: unknown key "mesage-max" in section "sidecar", did you mean "message-max"?' in log


def test_check_says_yes_no_or_misused(compile, workdir):
    flags = ["--descriptor", compile(PIPELINE), "--listen", f"unix:{workdir}/s", "--check"]
    code, out, _ = run(*flags)
    assert code == 0 and "all is well" in out and "session rings" in out
    code, out, _ = run(*flags, "--json")
    verdict = json.loads(out)
    assert code == 0 and verdict["ok"] is True and verdict["findings"] == [] and verdict["budget"]["total_bytes"] > 0
    code, out, log = run(*flags, "--memory-limit", "64MiB")
    assert code == 2 and "--memory-limit allows 64.0 MiB" in log
    code, out, _ = run(*flags, "--memory-limit", "64MiB", "--json")
    assert code == 2 and json.loads(out)["ok"] is False and json.loads(out)["findings"]
    code, out, _ = run("--check", "--json", "--listen", ":1")
    assert code == 2 and json.loads(out)["findings"]
    (workdir / "bad.yaml").write_text("steps: 4\n")
    code, out, _ = run("--descriptor", workdir / "bad.yaml", "--listen", ":1", "--check", "--json")
    assert code == 1 and json.loads(out)["diagnostics"]
    assert not (workdir / "s").exists()


@pytest.mark.parametrize("flags", [["--version"], ["--help"], ["--check"], ["--check", "--json"]])
def test_a_report_that_cannot_be_written_is_no_good_report(compile, flags):
    if "--check" in flags:
        flags = ["--descriptor", str(compile(PIPELINE)), "--listen", ":1", *flags]
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(BRIDGED), *flags], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "standard output cannot be written: No space left on device" in done.stderr


def test_too_little_memory_is_refused_at_start(compile, workdir):
    code, _, log = run("--descriptor", compile(PIPELINE), "--listen", f"unix:{workdir}/s", "--slots", "64", "--memory-limit", "2GiB")
    assert code == 2
    assert "lower --slots" in log and "slots fit" in log and "unary rings" in log


def test_all_slots_there_can_be(bridged, client):
    same = PIPELINE[: PIPELINE.index("    kind: map")] + "    kind: passthrough\nsinks:\n  out: { kind: discard }\n"  # which loads at once
    sidecar = bridged(same, slots=128, flags=["--message-max", "64KiB", "--unary-message-max", "64KiB", "--window-bytes", "1MiB"])
    assert client(sidecar.unix, metadata=[("bridge-slot", "127")]).process(0, b"last")[0].payload == b"last"
    assert len(sidecar.stats_json("slots")["slots"]) == 128


# ---- Stops -------------------------------------------------------------------------------------------------------------


def test_what_is_in_flight_is_finished(bridged, client):
    sidecar = bridged(PIPELINE)
    caller = client(sidecar.unix)
    call = InFlight(sidecar, caller, SHORT)
    sidecar.process.terminate()
    assert call.status() == grpc.StatusCode.OK
    sidecar.stop()


def test_a_drain_is_bounded(bridged, client):
    sidecar = bridged(PIPELINE, flags=["--drain-timeout", "200ms", "--stop-grace", "200ms"])
    call = InFlight(sidecar, client(sidecar.unix), LONG)
    sidecar.process.terminate()
    assert call.status() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    sidecar.stop()


def test_a_second_signal_does_not_wait(bridged, client):
    sidecar = bridged(PIPELINE, flags=["--drain-timeout", "1h"])
    call = InFlight(sidecar, client(sidecar.unix), LONG)
    sidecar.process.send_signal(signal.SIGINT)
    sidecar.wait_for_log("stopping ")
    assert sidecar.stats_json("health")["status"] == "DRAINING"
    sidecar.process.send_signal(signal.SIGINT)
    assert call.status() == grpc.StatusCode.UNAVAILABLE
    sidecar.process.wait(PATIENCE)
    sidecar.stop()


def test_sessions_that_idle_do_not_hold_a_stop_up(bridged, client):
    sidecar = bridged(PIPELINE, flags=["--drain-timeout", "1h"])
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"a") == [b"A"]
    sidecar.process.terminate()
    assert session.end()[0] == grpc.StatusCode.UNAVAILABLE
    sidecar.process.wait(PATIENCE)
    sidecar.stop()


def test_connections_that_say_nothing_do_not_hold_a_stop_up(bridged):
    sidecar = bridged(PIPELINE, flags=["--drain-timeout", "1h"])
    with contextlib.ExitStack() as stack:
        for greeting in (b"", raw_http2.PREFACE) * 5:
            for address in (sidecar.unix, sidecar.tcp):
                connection = stack.enter_context(raw_http2.connect(address))
                connection.sendall(greeting)
                if greeting:
                    assert connection.recv(1)  # it is known: the server's settings
        sidecar.process.terminate()
        sidecar.process.wait(PATIENCE)
    sidecar.stop()


# ---- Being asked -------------------------------------------------------------------------------------------------------


def test_the_stats_socket_works_with_socat(bridged):
    sidecar = bridged(PIPELINE)

    def ask(lines):
        command = ["socat", "-t", "20", "-", f"UNIX-CONNECT:{sidecar.stats_path}"]
        return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    commands = [line.split()[0] for line in ask("help\n").splitlines()[1:] if line and not line.startswith("With")]
    shows = {"help", "stats", "slots", "lives", "sessions", "segments", "deaths", "health", "config", "version", "reloading", "metrics"}
    assert set(commands) == shows | {"state", "reload", "restart_worker", "drain"}
    for command in shows | {"state 0"}:
        assert ask(command + "\n").endswith("\n\n")
        assert isinstance(json.loads(ask(command + " json\n")), dict)
        assert isinstance(json.loads(ask("json " + command)), dict)
    assert ask("slosts\n") == 'error: unknown command "slosts", did you mean "slots"?\n\n'
    assert ask("version\nhealth\n").count("\n\n") == 2


def test_the_stats_socket_answers_while_everything_else_hangs(bridged):
    sidecar = bridged(PIPELINE, slots=2)

    def states():
        return sorted(process["state"] for process in sidecar.stats_json("health")["processes"])

    # All of them, and none that comes later: the supervisor goes on, and would start an heir among the stopped.
    wait_until(lambda: states() == ["heir", "heir", "ready", "ready", "serving"], "everybody to be at their work, the heirs, too")
    stopped = descendants(sidecar.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        # A signal is sent before it has arrived: each stops when it is next given a processor.
        wait_until(lambda: states() == ["stopped"] * 5, "all to be seen stopped")
        health = sidecar.stats_json("health")
        assert health["status"] == "DEGRADED" and not health["healthy"]
        assert len(health["reasons"]) == 3, "the front and two workers; heirs are nobody's trouble yet"
        for command in ("stats", "slots", "sessions", "segments", "config", "version", "help"):
            assert sidecar.stats_json(command)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: healthy(sidecar), "all to be well again")


def test_sessions_and_counters_are_seen(bridged, client):
    sidecar = bridged(PIPELINE, slots=2)
    assert sidecar.stats_json("sessions") == {"sessions": []}
    session = client(sidecar.unix).session(sidecar, job="orders", subtask=1, parallelism=2)
    session.exchange(b"a", b"b", b"c")
    wait_until(lambda: sidecar.stats_json("segments")["segments"][0]["records_in"] == 3, "three records to be counted")
    (seen,) = sidecar.stats_json("sessions")["sessions"]
    assert (seen["job"], seen["subtask"], seen["parallelism"]) == ("orders", 1, 2)
    assert seen["bytes_in"] > 0 and seen["messages_in"] >= 2
    (step,) = sidecar.stats_json("segments")["steps"]
    assert (step["step"], step["kind"], step["records_in"], step["records_out"]) == ("shout", "map", 3, 3)

    def latencies():
        segment = sidecar.stats_json("stats")["segments"][0]
        return segment["worker"]["latency"]["count"] >= 1 and segment["front"]["latency"]["count"] >= 1

    wait_until(latencies, "what it took to be counted")
    assert session.finish()[0] == grpc.StatusCode.OK
    wait_until(lambda: sidecar.stats_json("sessions") == {"sessions": []}, "the session to be gone")


def ticks(pid):
    """CPU time of a process in clock ticks."""
    fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_idle_supervisor_takes_no_cpu(bridged):
    sidecar = bridged(PIPELINE, slots=4)
    sidecar.wait_until_whole()

    def rests():
        before = ticks(sidecar.pid)
        time.sleep(1)  # the time that is measured, not a wait for something
        return ticks(sidecar.pid) - before <= 1

    wait_until(rests, "it to come to rest")


def test_clients_of_the_stats_socket_that_behave_badly(bridged):
    sidecar = bridged(PIPELINE)
    sidecar.wait_until_whole()
    fds = sidecar.fds()
    greedy = socket.socket(socket.AF_UNIX)
    greedy.connect(sidecar.stats_path)
    greedy.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            greedy.send(b"stats\n" * 1000)

    def vanish():
        for _ in range(100):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(sidecar.stats_path)
                client.send(b"stats json\n" * 3)

    threads = [threading.Thread(target=vanish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert healthy(sidecar)
    greedy.close()
    wait_until(lambda: sidecar.fds() <= fds, "all connections to be closed")


def test_the_open_door_is_warned_of(bridged):
    port = free_port()
    sidecar = bridged(PIPELINE, flags=["--listen", f"0.0.0.0:{port}"])
    sidecar.wait_for_log(rf"warn +supervisor: 0\.0\.0\.0:{port} can be reached from other machines")
