"""A sidecar that does as it is told and writes down what it is sent: what `bridgectl run` says to a real one, word by word.

Started in the place of bridged by test_run_contract.py. DOUBLE_LOG names the file that gets one JSON object per message; DOUBLE
is a JSON object of what to do besides echoing every record:

    wakeup_ms   ask for a tick so long after each batch
    split       answer a batch with one Results per record
    slow_batch  take so many ms for each batch
    mute        answer nothing but Open
    key         give every record its payload as key
    error       answer the first batch with this fatal Error
    status      end the stream at the first batch with [code, text]
    garbage     answer the first batch with bytes that are no message
    seq         add this to the seq of every answer
    slow_ack    wait so many ms before a barrier is acknowledged
    state       count the records of each key; send the counts at barriers, in so many entries a message, and take them back; every
                record comes out as "payload count"
    early       send what has changed with every batch as well, not only at barriers
    part        send and expect values in parts of so many bytes
    spoil       what to do wrong with the first StateDelta: checksum, state, or part
"""

import concurrent.futures
import ctypes
import ctypes.util
import json
import os
import signal
import sys
import threading
import time

import grpc

sys.path.insert(0, os.environ["DOUBLE_PROTO"])
import flink_bridge_pb2 as bridge  # noqa: E402

ORDERS = json.loads(os.environ.get("DOUBLE", "{}"))
LOG = open(os.environ["DOUBLE_LOG"], "a", buffering=1)
LOCK = threading.Lock()
XXHASH = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
XXHASH.XXH3_64bits.restype = ctypes.c_uint64
XXHASH.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def xxh3(data):
    """XXH3-64 of some bytes."""
    return XXHASH.XXH3_64bits(data, len(data))


def note(opened, message, size):
    """One line of the log."""
    kind = message.WhichOneof("kind")
    line = {"segment": opened.segment, "subtask": opened.subtask, "seq": message.seq, "time": message.processing_time_ms, "kind": kind}
    line["size"] = size
    if kind == "open":
        fields = ("allocation_id", "parallelism", "max_parallelism", "key_group_first", "key_group_last", "jvm_uuid", "protocol_version")
        line.update({name: getattr(opened, name) for name in (*fields, "pipeline", "topology_hash", "attempt_id", "restored_checkpoint")})
        line["manifest"] = [[state.step, state.name] for state in opened.state_manifest]
    elif kind == "batch":
        line["records"] = [
            {
                "payload": record.payload.decode(errors="replace")[:100],
                "timestamp": record.timestamp,
                "input": record.input,
                "key": record.key.decode() if record.WhichOneof("maybe_key") else None,
                "key_group": record.key_group,
            }
            for record in message.batch.records
        ]
    elif kind == "watermark":
        line["watermark"] = message.watermark.timestamp
    elif kind == "watermark_status":
        line["idle"] = message.watermark_status.idle
    elif kind == "barrier":
        line["barrier"] = message.barrier.checkpoint_id
    elif kind == "restore_end":
        line["entries"] = message.restore_end.entries
    write(line)


def write(line):
    """One line of the log."""
    with LOCK:
        LOG.write(json.dumps(line) + "\n")


def answer_batch(message, context, wakeup):
    """What comes back for a batch."""
    time.sleep(ORDERS.get("slow_batch", 0) / 1000)
    for record in message.batch.records:
        record.input = 0
        if "key" in ORDERS:
            record.key = record.payload.split()[0] if record.payload else b""
            record.key_hash = xxh3(record.key) & 0x7FFFFFFF
    if "error" in ORDERS:
        yield bridge.FromWorker(seq=message.seq, error=bridge.Error(fatal=True, seq=message.seq, **ORDERS["error"]))
        context.abort(grpc.StatusCode.INTERNAL, "the session is over")
    if "status" in ORDERS:
        context.abort(getattr(grpc.StatusCode, ORDERS["status"][0]), ORDERS["status"][1])
    seq = message.seq + ORDERS.get("seq", 0)
    records = list(message.batch.records)
    parts = [[record] for record in records] if "split" in ORDERS else [records]
    for at, part in enumerate(parts):
        more = at + 1 < len(parts)
        yield bridge.FromWorker(seq=seq, next_wakeup_ms=0 if more else wakeup, results=bridge.Results(records=part, more=more))


class State:
    """What a session of the double remembers: how many records it has seen of each key."""

    def __init__(self):
        self.counts, self.dirty, self.part = {}, set(), b""
        self.manifest = [bridge.StateDeclaration(step="count", name=name, format_version=1) for name in ("unused", "counts")]

    def count(self, record):
        """Counts a record, and writes the count into it."""
        key = record.payload.split()[0] if record.payload else b""
        self.counts[key] = self.counts.get(key, (0, record.key_hash, record.key_group))
        self.counts[key] = (self.counts[key][0] + 1, record.key_hash, record.key_group)
        self.dirty.add(key)
        record.payload += b" %d" % self.counts[key][0]

    def entries(self):
        """The entries that have changed, large values in parts."""
        for key in sorted(self.dirty):
            count, key_hash, group = self.counts[key]
            value, part = b"%020d" % count, ORDERS.get("part", 100)
            for at in range(0, len(value), part):
                yield bridge.StateEntry(
                    state=1, key_group=group, key_hash=key_hash, key=key, sub_key=b"s", value=value[at : at + part],
                    more=at + part < len(value),
                )  # fmt: skip
        self.dirty.clear()

    def deltas(self):
        """The messages of a barrier."""
        entries = list(self.entries())
        for at in range(0, len(entries), ORDERS["state"]):
            delta = bridge.StateDelta(entries=entries[at : at + ORDERS["state"]])
            delta.checksum = checksum(delta)
            spoil = ORDERS.pop("spoil", None)
            if spoil == "checksum":
                delta.checksum = (delta.checksum + 1) % 2**64
            elif spoil:
                delta.entries[0].state = 7 if spoil == "state" else 1
                delta.entries[0].more |= spoil == "part"
                delta.checksum = checksum(delta)
            yield delta

    def restore(self, chunk):
        """Takes a RestoreChunk in."""
        assert chunk.checksum == checksum(chunk), "a chunk is damaged"
        for entry in chunk.entries:
            assert entry.state == 1 and entry.sub_key == b"s"
            self.part += entry.value
            if not entry.more:
                assert entry.key not in self.counts, "a key came twice"
                self.counts[entry.key] = (int(self.part), entry.key_hash, entry.key_group)
                self.part = b""


def checksum(message):
    """Of a StateDelta or RestoreChunk: over its `entries` fields as they are on the wire."""
    bare = bridge.StateDelta(entries=message.entries)
    return xxh3(bare.SerializeToString())


def open_ack(opened, state):
    """The answer to an Open."""
    limits = bridge.Limits(max_message_bytes=1 << 20, max_record_bytes=1 << 20)
    return bridge.OpenAck(epoch=1, limits=limits, state_manifest=state.manifest if "state" in ORDERS else [])


def barrier_answers(message, state, opened):
    """What comes back for a barrier."""
    if "state" in ORDERS:
        for delta in state.deltas():
            yield bridge.FromWorker(seq=message.seq, state_delta=delta)
    time.sleep(ORDERS.get("slow_ack", 0) * (1 + opened.subtask) / 1000)
    write({"kind": "acknowledged", "segment": opened.segment, "subtask": opened.subtask, "time": int(time.time() * 1000)})
    yield bridge.FromWorker(seq=message.seq, barrier_ack=bridge.BarrierAck(checkpoint_id=message.barrier.checkpoint_id))


def session(requests, context):
    """The Session method."""
    opened, wakeup, state = None, 0, State()
    for raw in requests:
        message = bridge.ToWorker.FromString(raw)
        opened = opened or message.open
        note(opened, message, len(raw))
        kind = message.WhichOneof("kind")
        if kind == "open":
            yield bridge.FromWorker(seq=1, open_ack=open_ack(opened, state)).SerializeToString()
        elif kind == "restore_chunk":
            state.restore(message.restore_chunk)
        elif kind == "restore_end":
            ack = bridge.RestoreAck(entries=len(state.counts))
            yield bridge.FromWorker(seq=message.seq, restore_ack=ack).SerializeToString()
        elif "mute" in ORDERS:
            continue
        elif kind == "batch" and "garbage" in ORDERS:
            yield b"\xff\xff\xff garbage"
        elif kind == "batch":
            if "state" in ORDERS and opened.segment > 0:
                for record in message.batch.records:
                    state.count(record)
            wakeup = wakeup or (int(time.time() * 1000) + ORDERS["wakeup_ms"] if "wakeup_ms" in ORDERS else 0)
            if "early" in ORDERS:
                yield from (bridge.FromWorker(seq=message.seq, state_delta=delta).SerializeToString() for delta in state.deltas())
            yield from (answer.SerializeToString() for answer in answer_batch(message, context, wakeup))
        elif kind in ("watermark", "watermark_status", "timer_tick"):
            wakeup = 0 if kind == "timer_tick" else wakeup
            yield bridge.FromWorker(seq=message.seq, next_wakeup_ms=wakeup, results=bridge.Results()).SerializeToString()
        elif kind == "barrier":
            yield from (answer.SerializeToString() for answer in barrier_answers(message, state, opened))
        elif kind == "end_input":
            yield bridge.FromWorker(seq=message.seq, end_ack=bridge.EndAck()).SerializeToString()
        elif kind == "close":
            return


def main():
    address = sys.argv[sys.argv.index("--listen") + 1]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    handler = grpc.stream_stream_rpc_method_handler(session)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("flink_bridge.FlinkBridge", {"Session": handler})])
    assert server.add_insecure_port(address)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.start()
    server.wait_for_termination()


main()
