"""What every end-to-end test uses: a real `bridged`, a real gRPC client that another implementation generated, and a look at what is left.

    def test_example(bridged, client):
        sidecar = bridged(PIPELINE, slots=2)                 # starts it, waits until it serves
        reply = client(sidecar.unix).process(0, b"hello")    # unary; .session(...) for streams
        sidecar.stats("slots")                               # the stats socket

When the test ends, the sidecar is asked to stop, and the test fails if it does not leave with 0, if a process, socket, lock or other
file of its own is left, or if a sanitizer spoke. BRIDGE_BUILD says which build is tested (default build/release).
"""

import contextlib
import fcntl
import json
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import uuid

import grpc
import pytest
import yaml

from state_table import StateTable, chunks, key_group, key_hash

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = TOP / os.environ.get("BRIDGE_BUILD", "build/release")
BRIDGED = BUILD / "bridged"
BRIDGECTL = BUILD / "bridgectl"
PROTO = TOP / "build" / "e2e_proto"
SANITIZED = "san" in BUILD.name
PATIENCE = 120.0 if SANITIZED else 60.0  # seconds; for what must come, never as a measure

SANITIZER_REPORT = re.compile(r"(ERROR|WARNING): (Address|Leak|Thread)Sanitizer|runtime error:|this should never happen")
BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE * 4))


def pytest_configure(config):
    config.addinivalue_line("markers", "timeout(seconds): see pytest-timeout")
    generate_stubs()
    sys.path.insert(0, str(PROTO))


def generate_stubs():
    """Python classes of both contracts, made by grpcio-tools when the .proto files are newer; safe against a second pytest."""
    PROTO.mkdir(parents=True, exist_ok=True)
    with open(PROTO / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = sorted((TOP / "proto").glob("flink_*.proto"))  # health comes with grpcio-health-checking
        stamp = PROTO / "made"
        if stamp.exists() and all(source.stat().st_mtime < stamp.stat().st_mtime for source in sources):
            return
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{TOP / 'proto'}", f"--python_out={PROTO}", f"--grpc_python_out={PROTO}"]
            + [str(source) for source in sources],
            check=True,
        )
        stamp.touch()


@pytest.fixture(scope="session")
def proto():
    """The generated modules: worker, worker_grpc (unary contract); bridge, bridge_grpc (sessions)."""
    import flink_bridge_pb2
    import flink_bridge_pb2_grpc
    import flink_worker_pb2
    import flink_worker_pb2_grpc

    return types.SimpleNamespace(
        worker=flink_worker_pb2, worker_grpc=flink_worker_pb2_grpc, bridge=flink_bridge_pb2, bridge_grpc=flink_bridge_pb2_grpc
    )


def wait_until(condition, what, patience=PATIENCE):
    """Asks a condition until it gives something true, and returns that; fails with `what` (text, or what makes it) when it never does."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience:.0f} s for: {what() if callable(what) else what}")
        time.sleep(0.01)


HELD_PORTS = []


def free_port():
    """A TCP port on the loopback that nobody listens on, and that is this process's until it ends.

    It is below those that the kernel gives to clients, who may come in between; and a name in the abstract namespace keeps other tests off.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        claim = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            claim.bind(f"\0flink-bridge-tests-{port}")
            probe.bind(("127.0.0.1", port))
            HELD_PORTS.append(claim)
            return port
        claim.close()


# ---- Looking at processes --------------------------------------------------------------------------------------------


def descendants(pid):
    """Process ids below `pid`, from /proc."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path("/proc", entry, "stat").read_text()
                parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        stat = pathlib.Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def fd_count(pid):
    """Open file descriptors of a process; none when it has ended."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def memory_kib(pid, field="Pss"):
    """A line of smaps_rollup in KiB: Pss, Rss, Private_Dirty, ..."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


# ---- bridgectl compile -----------------------------------------------------------------------------------------------


@pytest.fixture
def workdir():
    """A folder of the test's own with a short path: socket paths have 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="b"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def bridgectl(workdir):
    """Runs bridgectl with arguments; returns the finished process, with text output. `check=False` when it may fail."""

    def run(*arguments, check=True, **options):
        done = subprocess.run(
            [str(BRIDGECTL), *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE * 2, cwd=workdir, **options
        )
        assert not SANITIZER_REPORT.search(done.stderr), done.stderr
        assert not check or done.returncode == 0, f"bridgectl {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture
def compile(bridgectl, workdir):
    """Compiles the text of a pipeline (and of an overlay) to a descriptor.yaml; returns its path."""

    def run(pipeline, config=None, name="pipeline"):
        source, target = workdir / f"{name}.yaml", workdir / f"{name}.descriptor.yaml"
        source.write_text(pipeline)
        arguments = ["compile", source, "-o", target]
        if config is not None:
            overlay = workdir / f"{name}.config.yaml"
            overlay.write_text(config)
            arguments += ["--config", overlay]
        bridgectl(*arguments)
        return target

    return run


def find_key(tree, key):
    """The first value of a key anywhere in a tree of dicts and lists; None when there is none."""
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            found = find_key(branch, key)
            if found is not None:
                return found
    return None


# ---- bridged -----------------------------------------------------------------------------------------------------------


class Sidecar:
    """A running bridged."""

    def __init__(self, folder, descriptor, slots, flags, tcp, stdout=None):
        self.folder = folder
        self.descriptor_path = descriptor
        self.descriptor = yaml.safe_load(descriptor.read_text())
        self.topology_hash = find_key(self.descriptor, "topology_hash")
        self.unix = f"unix:{folder}/s"
        self.tcp = f"127.0.0.1:{free_port()}" if tcp else None
        self.stats_path = f"{folder}/stats"
        self.log_path = folder / "stderr"
        self.command = [str(BRIDGED), "--descriptor", str(descriptor), "--slots", str(slots), "--listen", self.unix]
        self.command += ["--listen", self.tcp] if tcp else []
        self.command += ["--stats", self.stats_path, *flags]
        self.before = self.files()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
        self.pid = self.process.pid
        self.seen = set()

    def files(self):
        return {entry.name for entry in self.folder.iterdir()} | {"stderr"}

    def log(self):
        """Everything it wrote to standard error so far."""
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, pattern, patience=PATIENCE):
        """Waits for a log line that matches; returns the match."""

        def look():
            found = re.search(pattern, self.log())
            assert found or self.process.poll() is None, f"bridged left with {self.process.poll()}:\n{self.log()}"
            return found

        return wait_until(look, f"a log line {pattern!r} in\n{self.log()}", patience)

    def wait_until_serving(self):
        """Waits for the supervisor's word that the front listens and every worker is ready."""
        self.wait_for_log(r"serving pipeline")

    def wait_until_whole(self):
        """Waits until behind each worker its heirs wait, too, which are forked once it serves: nobody is to come any more."""
        heirs = int(next(row["value"] for row in self.stats_json("config")["flags"] if row["flag"] == "heirs"))

        def look():
            return all(slot["state"] == "ready" and slot["heirs"] == heirs for slot in self.stats_json("slots")["slots"])

        wait_until(look, lambda: f"a worker in each slot and {heirs} behind it:\n{self.stats('slots')}")

    def stats(self, command):
        """What the stats socket answers to a line."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.stats_path)
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def stats_json(self, command):
        """The same as JSON, parsed."""
        return json.loads(self.stats(command + " json"))

    def role(self, name):
        """The process id of a child by its name: front, worker 0, ...; None while there is none."""
        for pid in self.processes()[1:]:
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip().removeprefix("bridged").strip(" :") == name:
                    return pid
        return None

    def processes(self):
        """Process ids: supervisor first, then its children."""
        found = [self.pid, *descendants(self.pid)]
        self.seen.update(found)
        return found

    def fds(self):
        """Descriptors open in all of its processes."""
        return sum(map(fd_count, self.processes()))

    def pss_kib(self):
        """Memory of all of its processes, shared pages shared out."""
        return sum(memory_kib(pid) for pid in self.processes() if alive(pid))

    def stop(self, number=signal.SIGTERM, code=0):
        """Asks it to stop, waits, and checks that nothing is left; `code` None: any."""
        self.processes()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            ended = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"bridged did not stop within {PATIENCE:.0f} s of {signal.Signals(number).name}:\n{self.log()}")
        log = self.log()
        assert not SANITIZER_REPORT.search(log), log
        assert code is None or ended == code, f"bridged left with {ended}:\n{log}"
        wait_until(lambda: not any(alive(pid) for pid in self.seen), f"all processes of bridged to end:\n{log}")
        if ended == 0:
            left = self.files() - self.before
            assert not left, f"bridged left files behind: {left}\n{log}"

    def kill(self):
        """Ends whatever still lives, without questions."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def bridged(compile, workdir, request):
    """Starts a bridged: bridged(pipeline_text, slots=1, flags=[...], config=overlay_text, descriptor=path, tcp=True, wait=True)."""
    started = []

    def start(pipeline=None, slots=1, flags=(), config=None, descriptor=None, tcp=True, wait=True):
        if descriptor is None:
            descriptor = compile(pipeline, config, name=f"p{len(started)}")
        elif isinstance(descriptor, str):
            text, descriptor = descriptor, workdir / f"p{len(started)}.descriptor.yaml"
            descriptor.write_text(text)
        folder = workdir / f"r{len(started)}"
        folder.mkdir()
        sidecar = Sidecar(folder, descriptor, slots, list(map(str, flags)), tcp)
        started.append(sidecar)
        if wait:
            sidecar.wait_until_serving()
            sidecar.processes()
        return sidecar

    yield start
    try:
        for sidecar in started:
            if sidecar.process.returncode is None:
                sidecar.stop()
            assert not SANITIZER_REPORT.search(sidecar.log()), sidecar.log()
    finally:
        for sidecar in started:
            sidecar.kill()


# ---- Clients -----------------------------------------------------------------------------------------------------------


class Client:
    """One connection, with both contracts."""

    def __init__(self, address, proto, metadata=(), options=()):
        self.proto = proto
        self.channel = grpc.insecure_channel(address, options=[*BIG, *options])
        self.worker = proto.worker_grpc.FlinkWorkerServiceStub(self.channel)
        self.bridge = proto.bridge_grpc.FlinkBridgeStub(self.channel)
        self.metadata = tuple(metadata)

    def process(self, segment, payload, headers=None, timestamp=0, timeout=PATIENCE):
        """ProcessMessage; returns the messages that came back."""
        message = self.proto.worker.Message(payload=payload, headers=headers or {}, timestamp=timestamp)
        request = self.proto.worker.ProcessMessageRequest(message=message, segment_id=segment)
        return list(self.worker.ProcessMessage(request, timeout=timeout, metadata=self.metadata).messages)

    def watermark(self, segment, timestamp, timeout=PATIENCE):
        """ProcessWatermark; returns the messages that came back."""
        request = self.proto.worker.ProcessWatermarkRequest(timestamp=timestamp, segment_id=segment)
        return list(self.worker.ProcessWatermark(request, timeout=timeout, metadata=self.metadata).messages)

    def add(self, segment, key, start, payload, timeout=PATIENCE):
        """AddToWindow."""
        window = self.proto.worker.WindowIdentifier(partition_key=key, window_start_time=start)
        request = self.proto.worker.AddToWindowRequest(
            message=self.proto.worker.Message(payload=payload), segment_id=segment, window_id=window
        )
        return self.worker.AddToWindow(request, timeout=timeout, metadata=self.metadata)

    def trigger(self, segment, key, start, timeout=PATIENCE):
        """TriggerWindow; returns the messages that came back."""
        window = self.proto.worker.WindowIdentifier(partition_key=key, window_start_time=start)
        request = self.proto.worker.TriggerWindowRequest(window_id=window, segment_id=segment)
        return list(self.worker.TriggerWindow(request, timeout=timeout, metadata=self.metadata).messages)

    def session(self, sidecar, segment=0, open=True, timeout=PATIENCE, metadata=(), **fields):
        """Starts a Session; with `open` it sends Open (its fields by name) and waits for OpenAck."""
        return Session(self, sidecar, segment, open, timeout, metadata, fields)

    def close(self):
        self.channel.close()


class Session:
    """A Session stream. Messages carry the next seq by themselves; `clock` is the processing time they carry.

    `table` is its state as a client keeps it: each StateDelta that is received on the way goes into it. `restore`: what share() gives.
    """

    def __init__(self, client, sidecar, segment, open, timeout, metadata, fields):
        self.proto = client.proto.bridge
        self.outgoing = queue.SimpleQueue()
        self.seq = 0
        self.clock = 1
        self.call = client.bridge.Session(iter(self.outgoing.get, None), timeout=timeout, metadata=tuple(metadata))
        self.ack = None
        self.table = StateTable()
        self.deltas = 0  # that have come
        if open:
            manifest, entries = fields.pop("restore", ((), ()))
            if manifest:
                fields = dict(restored_checkpoint=1, state_manifest=manifest, restored_entries=len(entries)) | fields
            self.open(sidecar, segment, **fields)
            self.ack = self.receive("open_ack")
            self.table.manifest = list(self.ack.open_ack.state_manifest)
            if manifest:
                self.restore(manifest, entries)

    def open(self, sidecar, segment, **fields):
        """Sends Open; what is not named gets values that fit."""
        values = dict(
            protocol_version=2, job="job", pipeline=str(find_key(sidecar.descriptor, "pipeline") or ""), segment=segment,
            topology_hash=sidecar.topology_hash or "", allocation_id="allocation-0", attempt_id=str(uuid.uuid4()), subtask=0,
            parallelism=1, max_parallelism=128, key_group_first=0, key_group_last=127, jvm_uuid=JVM, open_token=next_token(),
        )  # fmt: skip
        values.update(fields)
        self.send(open=self.proto.Open(**values))

    def send(self, seq=None, clock=None, **kind):
        """Sends a ToWorker with one kind: send(watermark=bridge.Watermark(timestamp=5)). Returns its seq."""
        self.seq = self.seq + 1 if seq is None else seq
        self.clock = self.clock if clock is None else clock
        self.outgoing.put(self.proto.ToWorker(seq=self.seq, processing_time_ms=self.clock, **kind))
        return self.seq

    def post(self, message):
        """Sends a ToWorker that is complete."""
        self.seq, self.clock = message.seq, message.processing_time_ms
        self.outgoing.put(message)

    def send_records(self, *payloads, **common):
        """Sends a Batch of records that have these payloads (or are Records already)."""
        records = [p if isinstance(p, self.proto.Record) else self.proto.Record(payload=p, **common) for p in payloads]
        return self.send(batch=self.proto.Batch(records=records))

    def receive(self, kind=None):
        """The next FromWorker; fails when it is of another kind than asked for. The stream's end is a grpc.RpcError or StopIteration.

        A StateDelta goes into the table, and is given back only where it is asked for.
        """
        while True:
            message = next(self.call)
            is_delta = message.WhichOneof("kind") == "state_delta"
            if is_delta:
                self.table.apply(message.state_delta)
                self.deltas += 1
            if not is_delta or kind == "state_delta":
                assert kind is None or message.WhichOneof("kind") == kind, message
                return message

    def send_chunks(self, entries, **size):
        """Sends entries of state in RestoreChunks; returns how many chunks."""
        count = 0
        for chunk in chunks(self.proto, entries, **size):
            self.send(restore_chunk=chunk)
            count += 1
        return count

    def restore(self, manifest, entries, **size):
        """Sends restored state, and waits until it is in place; returns the RestoreAck."""
        self.send_chunks(entries, **size)
        self.send(restore_end=self.proto.RestoreEnd(entries=len(entries)))
        ack = self.receive("restore_ack").restore_ack
        assert ack.entries == len(entries)
        self.table = StateTable(manifest, entries).translate(self.table.manifest)
        self.table.forget_unkeyed()
        return ack

    def barrier(self, checkpoint=1):
        """Sends a Barrier; returns the records before it, and the table as it goes with the checkpoint."""
        seq = self.send(barrier=self.proto.Barrier(checkpoint_id=checkpoint))
        records = []
        while True:
            message = self.receive()
            assert message.seq == seq, message
            if message.WhichOneof("kind") == "barrier_ack":
                assert message.barrier_ack.checkpoint_id == checkpoint
                return records, self.table.copy()
            records += message.results.records

    def keyed(self, key, payload, timestamp=0, max_parallelism=128):
        """A record of a keyed segment."""
        hashed = key_hash(key)
        return self.proto.Record(payload=payload, key=key, key_hash=hashed, key_group=key_group(hashed, max_parallelism),
                                 timestamp=timestamp)  # fmt: skip

    def results(self, seq=None):
        """All records of the Results of one seq."""
        records = []
        while True:
            message = self.receive("results")
            assert seq is None or message.seq == seq, message
            records += message.results.records
            if not message.results.more:
                return records

    def exchange(self, *payloads, **common):
        """Sends a Batch and returns the payloads that come back."""
        return [record.payload for record in self.results(self.send_records(*payloads, **common))]

    def half_close(self):
        """No more messages from this side."""
        self.outgoing.put(None)

    def finish(self):
        """Sends Close, and returns the status that the stream ended with, as (grpc.StatusCode, text)."""
        self.send(close=self.proto.Close(reason="done"))
        self.half_close()
        return self.end()

    def end(self):
        """Reads on until the stream ends; returns its status as (grpc.StatusCode, text)."""
        with contextlib.suppress(grpc.RpcError):
            for _ in self.call:
                pass
        return self.call.code(), self.call.details()

    def cancel(self):
        self.call.cancel()
        self.half_close()


JVM = str(uuid.uuid4())
TOKENS = iter(range(1, 1 << 62))
TOKEN_LOCK = threading.Lock()


def next_token():
    with TOKEN_LOCK:
        return next(TOKENS)


@pytest.fixture
def client(proto):
    """Opens connections that are closed when the test ends: client(sidecar.unix), client(sidecar.tcp, metadata=[...])."""
    opened = []

    def open_one(address, metadata=(), options=()):
        opened.append(Client(address, proto, metadata, options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
