"""A sidecar that does as it is told and writes down what it is sent: what `bridgectl run` says to a real one, word by word.

Started in the place of bridged by test_run_contract.py. DOUBLE_LOG names the file that gets one JSON object per message; DOUBLE
is a JSON object of what to do besides echoing every record:

    wakeup_ms   ask for a tick so long after each batch
    split       answer a batch with one Results per record
    mute        answer nothing but Open
    key         give every record its payload as key
    error       answer the first batch with this fatal Error
    status      end the stream at the first batch with [code, text]
    garbage     answer the first batch with bytes that are no message
    seq         add this to the seq of every answer
"""

import concurrent.futures
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


def note(opened, message, size):
    """One line of the log."""
    kind = message.WhichOneof("kind")
    line = {"segment": opened.segment, "subtask": opened.subtask, "seq": message.seq, "time": message.processing_time_ms, "kind": kind}
    line["size"] = size
    if kind == "open":
        fields = ("allocation_id", "parallelism", "max_parallelism", "key_group_first", "key_group_last", "jvm_uuid", "protocol_version")
        line.update({name: getattr(opened, name) for name in (*fields, "pipeline", "topology_hash", "attempt_id")})
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
    with LOCK:
        LOG.write(json.dumps(line) + "\n")


def answer_batch(message, context, wakeup):
    """What comes back for a batch."""
    for record in message.batch.records:
        record.input = 0
        if "key" in ORDERS:
            record.key, record.key_hash = record.payload, len(record.payload)
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


def session(requests, context):
    """The Session method."""
    opened, wakeup = None, 0
    for raw in requests:
        message = bridge.ToWorker.FromString(raw)
        opened = opened or message.open
        note(opened, message, len(raw))
        kind = message.WhichOneof("kind")
        if kind == "open":
            limits = bridge.Limits(max_message_bytes=1 << 20, max_record_bytes=1 << 20)
            yield bridge.FromWorker(seq=1, open_ack=bridge.OpenAck(epoch=1, limits=limits)).SerializeToString()
        elif "mute" in ORDERS:
            continue
        elif kind == "batch" and "garbage" in ORDERS:
            yield b"\xff\xff\xff garbage"
        elif kind == "batch":
            wakeup = wakeup or (int(time.time() * 1000) + ORDERS["wakeup_ms"] if "wakeup_ms" in ORDERS else 0)
            yield from (answer.SerializeToString() for answer in answer_batch(message, context, wakeup))
        elif kind in ("watermark", "watermark_status", "timer_tick"):
            wakeup = 0 if kind == "timer_tick" else wakeup
            yield bridge.FromWorker(seq=message.seq, next_wakeup_ms=wakeup, results=bridge.Results()).SerializeToString()
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
