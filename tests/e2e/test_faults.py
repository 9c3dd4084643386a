"""Clients that behave badly, in numbers: what they cost while they are there, and that nothing of them stays."""

import collections
import contextlib
import itertools
import os
import pathlib
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading

import grpc
import pytest

import raw_http2
from conftest import JVM, PATIENCE, PROTO, SANITIZED, memory_kib, wait_until

PIPELINE = """
name: faults
sources:
  in: {kind: generator, count: 1}
steps:
  - {name: same, kind: passthrough, from: in}
  - {name: call, kind: passthrough, from: in}
  - {name: fan, kind: flat_map, from: in, program: 'range(.n) as $i | {i: $i, pad: ("x" * .pad)}'}
sinks:
  out: {kind: discard, from: [same, call, fan]}
"""
SAME, CALL, FAN = 0, 1, 2  # a segment that sessions serve takes no unary calls


def front_counters(sidecar):
    return sidecar.stats_json("stats")["front"]


def quiet(sidecar):
    """No session, no call, no ring memory beyond the unary channels: everything that clients caused has ended."""
    stats = sidecar.stats_json("stats")
    slots = sidecar.stats_json("slots")["slots"]
    sessions = stats["front"]["sessions_open"] + sum(slot["sessions"] for slot in slots)
    return sessions == 0 and stats["front"]["unary_in_flight"] == 0


def own_memory_kib(sidecar):
    """Memory that belongs to its processes alone, without the rings."""
    return sum(memory_kib(pid, "Anonymous") for pid in sidecar.processes())


def ring_kib(sidecar, client):
    """Pages that the shared memories really hold, as the front's descriptors show them, once each slot has its unary channel."""
    for slot in range(2):
        one = client(sidecar.unix, metadata=[("bridge-slot", str(slot))])
        assert one.process(CALL, b"here")[0].payload == b"here"
        one.close()
    total = 0
    for entry in pathlib.Path(f"/proc/{named(sidecar, 'bridged-front')}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith("/memfd:"):
                total += entry.stat().st_blocks // 2
    assert total > 0
    return total


def sockets(sidecar):
    """Sockets that its front holds: those who listen, and a connection each of its clients. Whoever asks for statistics talks to the supervisor."""
    count = 0
    for entry in pathlib.Path(f"/proc/{named(sidecar, 'bridged-front')}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(entry).startswith("socket:")
    return count


def test_a_thousand_connections(bridged, client):
    """All are open at once and each gets its answer; afterwards their sockets are gone."""
    sidecar = bridged(PIPELINE, slots=2)
    good = client(sidecar.unix)
    good.process(CALL, b"warm")
    before = sockets(sidecar)
    addresses = itertools.cycle([sidecar.unix, sidecar.tcp])
    connections = [raw_http2.connect(next(addresses)) for _ in range(1000)]
    request = raw_http2.process_message(good.proto, CALL, b"one of a thousand")
    for connection in connections:
        connection.sendall(raw_http2.PREFACE + request)
    for connection in connections:
        assert b"one of a thousand" in raw_http2.read_until(connection, [b"grpc-status"], PATIENCE)
    wait_until(lambda: sockets(sidecar) == before + 1000, "a thousand to be counted")
    assert good.process(CALL, b"still")[0].payload == b"still"
    for connection in connections:
        connection.close()
    wait_until(lambda: sockets(sidecar) == before, "the sockets of a thousand clients to be gone")


VANISHING = """
import sys, signal, os
sys.path.insert(0, sys.argv[3])
import grpc, flink_bridge_pb2 as bridge, flink_bridge_pb2_grpc as stubs
def messages():
    yield bridge.ToWorker(seq=1, processing_time_ms=1, open=bridge.Open(protocol_version=2, job="v", pipeline="faults",
        segment=0, topology_hash=sys.argv[2], allocation_id="allocation-0", attempt_id="v", parallelism=1, max_parallelism=128,
        key_group_last=127, jvm_uuid=sys.argv[4], open_token=1))
    seq = 1
    while True:
        seq += 1
        yield bridge.ToWorker(seq=seq, processing_time_ms=1, batch=bridge.Batch(records=[bridge.Record(payload=b"x" * 100)] * 100))
got = 0
for answer in stubs.FlinkBridgeStub(grpc.insecure_channel(sys.argv[1])).Session(messages()):
    got += 1
    if got == 50:
        print("flowing", flush=True)
"""


def test_a_client_killed_mid_stream(bridged, client):
    """A client process dies by SIGKILL with messages in every queue: its session ends, others go on, its place is free again."""
    sidecar = bridged(PIPELINE)
    other = client(sidecar.unix).session(sidecar, segment=FAN)
    for address in (sidecar.unix, sidecar.tcp):
        with subprocess.Popen(
            [sys.executable, "-c", VANISHING, address, sidecar.topology_hash, str(PROTO), JVM], stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout.readline() == "flowing\n"
            victim.send_signal(signal.SIGKILL)
        wait_until(lambda: front_counters(sidecar)["sessions_open"] == 1, "the dead client's session to end")
    assert other.exchange(b'{"n": 2, "pad": 1}') == [b'{"i":0,"pad":"x"}', b'{"i":1,"pad":"x"}']
    assert other.finish()[0] == grpc.StatusCode.OK


def test_a_client_that_never_reads(bridged, client):
    """Its answers pile up to the bounds of its own rings and outbox and no further, and others on the same slot are served."""
    sidecar = bridged(PIPELINE, slots=1)
    sidecar.wait_until_whole()
    good = client(sidecar.unix)
    session = good.session(sidecar, segment=SAME)
    greedy = [raw_http2.connect(sidecar.unix) for _ in range(4)]
    proto = good.proto.bridge
    # each record makes 100 of 5,000 bytes: half a megabyte for 30 bytes in
    fan = [proto.Record(payload=b'{"n": 100, "pad": 5000}')] * 20
    before = own_memory_kib(sidecar)
    sent = 0
    for number, connection in enumerate(greedy):
        connection.sendall(raw_http2.PREFACE + raw_http2.session_headers())
        connection.sendall(raw_http2.grpc_data(open_message(proto, sidecar, FAN, f"greedy-{number}")))
        connection.setblocking(False)
        for seq in range(2, 400):
            message = proto.ToWorker(seq=seq, processing_time_ms=1, batch=proto.Batch(records=fan))
            try:
                sent += connection.send(raw_http2.grpc_data(message.SerializeToString()))
            except BlockingIOError:
                break
    assert sent > 0
    wait_until(lambda: sidecar.stats_json("stats")["slots"][0]["worker"]["response_ring_full"] >= 4, "the four to be parked")
    for number in range(50):
        assert session.exchange(b"%d" % number) == [b"%d" % number]
        assert good.process(CALL, b"u%d" % number)[0].payload == b"u%d" % number
    grown = own_memory_kib(sidecar) - before
    assert grown < (400 if SANITIZED else 100) * 1024, f"{grown} KiB more"
    for connection in greedy:
        connection.close()
    wait_until(lambda: front_counters(sidecar)["sessions_open"] == 1, "the greedy sessions to end")
    assert session.finish()[0] == grpc.StatusCode.OK


def open_message(proto, sidecar, segment, job, allocation="allocation-0"):
    """A ToWorker with Open, as bytes."""
    values = dict(protocol_version=2, job=job, pipeline="faults", segment=segment, topology_hash=sidecar.topology_hash,
                  allocation_id=allocation, attempt_id=job, parallelism=1, max_parallelism=128, key_group_last=127,
                  jvm_uuid=JVM, open_token=1)  # fmt: skip
    return proto.ToWorker(seq=1, processing_time_ms=1, open=proto.Open(**values)).SerializeToString()


def vanishing_client(sidecar, good, number):
    """One client that goes away at some point of its life, politely or not."""
    connection = raw_http2.connect(sidecar.unix if number % 3 else sidecar.tcp)
    manner = number % 8
    with contextlib.suppress(ConnectionError):
        if manner == 0:
            pass  # not a word
        elif manner == 1:
            connection.sendall(raw_http2.PREFACE[:17])
        elif manner == 2:
            connection.sendall(raw_http2.PREFACE + raw_http2.session_headers())  # a stream, no Open
        elif manner == 3:
            connection.sendall(raw_http2.PREFACE + raw_http2.process_message(good.proto, CALL, b"x" * 1000))
        elif manner == 4:
            whole = raw_http2.process_message(good.proto, CALL, b"x" * 1000)
            connection.sendall(raw_http2.PREFACE + whole[: len(whole) - 300])  # half a request
        else:
            opening = open_message(good.proto.bridge, sidecar, SAME, f"job-{number}", f"allocation-{number % 2}")
            data = raw_http2.grpc_data(opening)
            connection.sendall(raw_http2.PREFACE + raw_http2.session_headers() + data)
            if manner == 5:
                # some of the answer: OpenAck, or that the slot has no room while the vanished are not all forgotten
                raw_http2.read_until(connection, [b"\x1a", b"grpc-status"], PATIENCE)
            if manner == 6:
                batch = good.proto.bridge.Batch(records=[good.proto.bridge.Record(payload=b"y" * 200)] * 20)
                message = good.proto.bridge.ToWorker(seq=2, processing_time_ms=1, batch=batch)
                connection.sendall(raw_http2.grpc_data(message.SerializeToString()))
    if number % 2:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a goodbye
    connection.close()


def let_vanish(sidecar, good, numbers):
    """Such clients, four at a time, and the wait until all of them are forgotten."""
    numbers = iter(numbers)
    lock = threading.Lock()
    failures = []

    def some():
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                vanishing_client(sidecar, good, number)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, f"{failures}\n{sidecar.log()[-3000:]}\n{sidecar.stats('slots')}{sidecar.stats('sessions')}"
    wait_until(lambda: quiet(sidecar), lambda: f"quiet; now {sidecar.stats('stats')}", PATIENCE * 3)


@pytest.mark.timeout(PATIENCE * 10)
def test_ten_thousand_clients_that_vanish(bridged, client):
    """They leave no memory, no descriptor, no socket, no session, and no ring memory behind."""
    sidecar = bridged(PIPELINE, slots=2)
    sidecar.wait_until_whole()
    good = client(sidecar.unix)
    total = 2000 if SANITIZED else 10000
    let_vanish(sidecar, good, range(total // 5))
    good.process(CALL, b"warm")
    rings = ring_kib(sidecar, client)
    wait_until(lambda: quiet(sidecar), "quiet")
    pids, idle = sidecar.processes(), sockets(sidecar)
    fds, memory = sidecar.fds(), own_memory_kib(sidecar)
    let_vanish(sidecar, good, range(total // 5, total // 5 + total))
    assert good.process(CALL, b"after")[0].payload == b"after"
    wait_until(lambda: ring_kib(sidecar, client) <= rings, "the ring memory of sessions that are over to be given back")
    wait_until(lambda: sockets(sidecar) <= idle, "all sockets to be closed")
    wait_until(lambda: sidecar.fds() <= fds, "all descriptors to be closed")
    assert sidecar.processes() == pids, "a process died of it"
    grown = own_memory_kib(sidecar) - memory
    if not SANITIZED:  # ASan keeps freed memory in quarantine
        assert grown < 4096, f"{grown} KiB more after {total} clients"


def new_answers():
    """What the load counts."""
    return {"stream": 0, "unary": 0, "statuses": collections.Counter()}


@contextlib.contextmanager
def ending(stop, threads):
    """Stops threads when the block is left."""
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def load(sidecar, client, stop, answers):
    """Sessions and calls that go on until told to stop, opening anew whatever breaks; counts what they get."""

    def stream(one, number):
        while not stop.is_set():
            session = None
            try:
                session = one.session(sidecar, segment=SAME, subtask=number, allocation_id=f"a{number % 2}", parallelism=4)
                while not stop.is_set():
                    assert session.exchange(b"s" * 100, b"t") == [b"s" * 100, b"t"]
                    answers["stream"] += 1
                session.finish()
            except (grpc.RpcError, StopIteration):
                if session is not None:
                    answers["statuses"][session.end()] += 1
                else:
                    answers["unopened"] = answers.get("unopened", 0) + 1
                stop.wait(0.02)
        one.close()

    def unary(one, number):
        while not stop.is_set():
            try:
                assert one.process(CALL, b"u" * 100)[0].payload == b"u" * 100
                answers["unary"] += 1
            except grpc.RpcError as error:
                answers["statuses"][error.code(), error.details()] += 1
                stop.wait(0.02)
        one.close()

    ones = [client(sidecar.unix) for _ in range(4)]
    ones += [client(sidecar.tcp, metadata=[("bridge-slot", str(n % 2))]) for n in range(4)]
    threads = [threading.Thread(target=stream if n < 4 else unary, args=(ones[n], n)) for n in range(8)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("victim", ["bridged-w0", "bridged-w1", "bridged-front"])
def test_sigkill_under_load(bridged, client, victim):
    """A process killed while sessions and calls run. A worker's heir takes over, and nobody hears of it; with the front all connections
    break, and those who come again are served."""
    sidecar = bridged(PIPELINE, slots=2)
    stop, answers = threading.Event(), new_answers()
    with ending(stop, load(sidecar, client, stop, answers)):
        for _ in range(3):
            was = answers["stream"], answers["unary"]
            wait_until(lambda: answers["stream"] > was[0] + 20 and answers["unary"] > was[1] + 20, lambda: f"load: {answers}")
            pid = wait_until(lambda: named(sidecar, victim), f"{victim} to live")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: named(sidecar, victim) not in (None, pid), f"another {victim}")
        was = answers["stream"], answers["unary"]
        wait_until(lambda: answers["stream"] > was[0] + 20 and answers["unary"] > was[1] + 20, lambda: f"load: {answers}")
    heard = {grpc.StatusCode.UNAVAILABLE} if victim == "bridged-front" else set()
    assert {code for code, _ in answers["statuses"]} == heard, answers["statuses"]
    wait_until(lambda: sidecar.stats_json("health")["healthy"], "health")
    wait_until(lambda: quiet(sidecar), "quiet")


def test_more_connections_than_were_provided_for(bridged, client):
    """--connections is what is checked at start, no trap: who comes later is served, then and afterwards."""
    sidecar = bridged(PIPELINE, flags=["--connections", "1"])
    for address in (sidecar.unix, sidecar.tcp):
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(raw_http2.connect(address)).sendall(raw_http2.PREFACE)
            assert client(address).process(CALL, b"among many")
        assert client(address).process(CALL, b"after many")


def named(sidecar, comm):
    """The pid of the child of that name; None while there is none."""
    for pid in sidecar.processes()[1:]:
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == comm:
                return pid
    return None


def connect(sidecar):
    """A bare connection that says nothing."""
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stranger.connect(sidecar.unix.removeprefix("unix:"))
    return stranger


def test_descriptors_that_run_out(bridged, client):
    """While the front has no descriptor left nobody is let in; those inside are served, and so is who came too early, once there is room."""
    sidecar = bridged(PIPELINE)
    inside = client(sidecar.unix)
    assert inside.process(CALL, b"before")[0].payload == b"before"
    front = named(sidecar, "bridged-front")
    room = len(os.listdir(f"/proc/{front}/fd")) + 5
    resource.prlimit(front, resource.RLIMIT_NOFILE, (room, room))
    crowd = [connect(sidecar) for _ in range(40)]
    sidecar.wait_for_log("cannot accept a connection, will try again: Too many open files")
    assert inside.process(CALL, b"meanwhile")[0].payload == b"meanwhile"
    late = client(sidecar.unix)
    answer = late.worker.ProcessMessage.future(
        late.proto.worker.ProcessMessageRequest(message=late.proto.worker.Message(payload=b"late"), segment_id=CALL),
        timeout=PATIENCE,
    )
    for stranger in crowd:
        stranger.close()
    assert len(answer.result().messages) == 1
    assert sidecar.log().count("cannot accept a connection") < 40


def test_connections_that_never_speak(bridged, client):
    """They wait in a table of 1,024; the one that has been silent for longest makes room for the next, and none of them for a client."""
    sidecar = bridged(PIPELINE)
    silent = [connect(sidecar) for _ in range(1024)]
    front = named(sidecar, "bridged-front")
    wait_until(lambda: len(os.listdir(f"/proc/{front}/fd")) > 1024, "all to be let in")
    extra = connect(sidecar)
    silent[0].settimeout(PATIENCE)
    assert silent[0].recv(1) == b""
    assert client(sidecar.unix).process(CALL, b"hello")[0].payload == b"hello"
    for stranger in [*silent, extra]:
        stranger.close()
    wait_until(lambda: len(os.listdir(f"/proc/{front}/fd")) < 100, "them to be gone")
