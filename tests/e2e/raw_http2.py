"""Just enough HTTP/2 to speak gRPC badly: frames by hand on a plain socket, thousands of clients a second, each free to vanish anywhere."""

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # and empty SETTINGS
DATA, HEADERS = 0, 1
END_STREAM, END_HEADERS = 1, 4


def connect(address):
    """A blocking socket to unix:PATH or HOST:PORT."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def frame(kind, flags, payload, stream=1):
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path, flags=END_HEADERS):
    """The HEADERS of a gRPC call, all literal, none indexed."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
              "te": "trailers", "content-type": "application/grpc"}  # fmt: skip
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields.items()
    )
    return frame(HEADERS, flags, block)


def session_headers():
    """The HEADERS of a Session."""
    return headers("/flink_bridge.FlinkBridge/Session")


def grpc_data(message, flags=0):
    """A gRPC message in DATA frames of at most 16 KiB."""
    body = b"\x00" + struct.pack(">I", len(message)) + message
    pieces = [body[at : at + 16384] for at in range(0, len(body), 16384)]
    return b"".join(frame(DATA, flags if piece is pieces[-1] else 0, piece) for piece in pieces)


def process_message(proto, segment, payload):
    """A whole ProcessMessage call."""
    request = proto.worker.ProcessMessageRequest(message=proto.worker.Message(payload=payload), segment_id=segment)
    return headers("/flink_worker.FlinkWorkerService/ProcessMessage") + grpc_data(request.SerializeToString(), END_STREAM)


def read_until(connection, marks, patience):
    """Reads until one of some marks is in what came, or the peer ends; returns everything. Not a parser."""
    connection.settimeout(patience)
    deadline = time.monotonic() + patience
    got = b""
    while not any(mark in got for mark in marks) and time.monotonic() < deadline:
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"{patience:.0f} s without any of {marks!r}, after {got!r}") from None
        if not piece:
            break
        got += piece
    return got
