"""The unary contract, flink_worker.FlinkWorkerService, by a client that another implementation generated."""

import concurrent.futures
import json

import grpc
import pytest
from conftest import PATIENCE
from wire_pipeline import AFTER, BUNDLE, BY_USER, DOUBLE, FAN, INT64_MAX, INT64_MIN, PIPELINE, SAME, SEGMENTS, SPLIT, UPPER

METHODS = ("ProcessMessage", "ProcessWatermark", "AddToWindow", "TriggerWindow")
BATCH_TIME = 10_000  # ms, of the segment BUNDLE


def payloads(messages):
    return [message.payload for message in messages]


def refused(call, *arguments, **options):
    """Makes a call that must fail; returns its status code and words."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code(), caught.value.details()


def raw(one, method, data, **options):
    """A call with any bytes for a request; the reply stays bytes."""
    return one.channel.unary_unary(f"/flink_worker.FlinkWorkerService/{method}")(data, timeout=PATIENCE, **options)


@pytest.fixture
def sidecar(bridged):
    return bridged(PIPELINE)


@pytest.fixture
def one(sidecar, client):
    return client(sidecar.unix)


# ---- The four calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_four_calls(sidecar, client, address):
    one = client(getattr(sidecar, address))
    [message] = one.process(SAME, b"\x00any \xff bytes", headers={"a": "1", "ü": "", "": "empty"}, timestamp=-5)
    assert message.payload == b"\x00any \xff bytes"
    assert dict(message.headers) == {"a": "1", "ü": "", "": "empty"}
    assert message.timestamp == -5
    assert one.watermark(SAME, 1000) == []
    for payload in (b"1", b"2", b"3"):
        assert one.add(SAME, "key", 60_000, payload).ByteSize() == 0
    assert payloads(one.trigger(SAME, "key", 60_000)) == [b"1", b"2", b"3"]
    assert one.trigger(SAME, "key", 60_000) == []


def test_chains_run(one):
    assert payloads(one.process(UPPER, b"hello")) == [b"HELLO"]
    assert json.loads(one.process(DOUBLE, b'{"v": 21}')[0].payload) == {"v": 42}
    assert [json.loads(p)["i"] for p in payloads(one.process(FAN, b'{"n": 3, "pad": 1}'))] == [0, 1, 2]
    assert one.process(FAN, b'{"n": 0, "pad": 1}') == []
    assert payloads(one.process(SAME, b"")) == [b""]


def test_headers_and_time_go_through_a_chain(one):
    [message] = one.process(DOUBLE, b'{"v": 1}', headers={"trace": "t-1"}, timestamp=77)
    assert (dict(message.headers), message.timestamp) == ({"trace": "t-1"}, 77)


def test_many_connections_at_once(sidecar, client):
    """Each connection must get the answers to its own calls, whatever the others do."""
    addresses = [sidecar.unix, sidecar.tcp] * 4

    def work(number):
        one = client(addresses[number])
        for i in range(150):
            payload = f"{number}:{i}".encode()
            assert payloads(one.process(UPPER if i % 2 else SAME, payload)) == [payload]
        return number

    with concurrent.futures.ThreadPoolExecutor(len(addresses)) as pool:
        assert sorted(pool.map(work, range(len(addresses)))) == list(range(len(addresses)))


def test_many_calls_on_one_connection(one, proto):
    """Calls of one connection are at work together, and each gets its own answer."""
    calls = []
    for i in range(300):
        message = proto.worker.Message(payload=str(i).encode())
        calls.append(one.worker.ProcessMessage.future(proto.worker.ProcessMessageRequest(message=message, segment_id=SAME)))
    assert [payloads(call.result(timeout=PATIENCE).messages) for call in calls] == [[str(i).encode()] for i in range(300)]


def test_key_and_route_are_headers(one):
    [keyed] = one.process(BY_USER, b'{"user": "ann"}', headers={"own": "1", "bridge-key": "a lie"})
    assert dict(keyed.headers) == {"own": "1", "bridge-key": "ann"}
    [big] = one.process(SPLIT, b'{"v": 101}')
    [rest] = one.process(SPLIT, b'{"v": 1}')
    assert (big.headers["bridge-route"], rest.headers["bridge-route"]) == ("big", "rest")
    assert json.loads(one.process(AFTER, b'{"user": "ann"}')[0].payload) == {"seen": {"user": "ann"}}


# ---- Watermarks ------------------------------------------------------------------------------------------------------


def test_a_watermark_never_fails(one):
    """A client sends one to every segment every two seconds and fails its job if that fails: new, old, the same, again."""
    for time in (1000, 3000, 3000, 2000, 0, -1, INT64_MIN, INT64_MAX, 5000):
        for segment in range(SEGMENTS):
            assert one.watermark(segment, time) == []


def test_a_watermark_with_headers(one, proto):
    request = proto.worker.ProcessWatermarkRequest(timestamp=1, headers={"a": "b"}, segment_id=SAME)
    assert list(one.worker.ProcessWatermark(request, timeout=PATIENCE).messages) == []


def test_a_batch_closes_by_size(one):
    assert one.process(BUNDLE, b"1") == []
    assert one.process(BUNDLE, b"2") == []
    assert payloads(one.process(BUNDLE, b"3")) == [b"[1,2,3]"]
    assert one.watermark(BUNDLE, INT64_MAX) == []


def test_a_batch_closes_by_watermark(one):
    one.watermark(BUNDLE, 50_000)
    assert one.process(BUNDLE, b"1") == []
    assert one.watermark(BUNDLE, 50_000 + BATCH_TIME - 1) == []
    assert payloads(one.watermark(BUNDLE, 50_000 + BATCH_TIME)) == [b"[1]"]
    assert one.watermark(BUNDLE, 50_000 + 2 * BATCH_TIME) == []


# ---- Windows ---------------------------------------------------------------------------------------------------------


def test_windows_are_told_apart(one):
    """By key, by start and by segment; the rest of the chain runs when they are triggered."""
    one.add(SAME, "a", 0, b"a0")
    one.add(SAME, "b", 0, b"b0")
    one.add(SAME, "a", 1, b"a1")
    one.add(UPPER, "a", 0, b"upper")
    one.add(SAME, "", 0, b"no key")
    assert payloads(one.trigger(UPPER, "a", 0)) == [b"UPPER"]
    assert payloads(one.trigger(SAME, "a", 0)) == [b"a0"]
    assert payloads(one.trigger(SAME, "a", 1)) == [b"a1"]
    assert payloads(one.trigger(SAME, "b", 0)) == [b"b0"]
    assert payloads(one.trigger(SAME, "", 0)) == [b"no key"]


def test_an_unknown_window_is_empty(one):
    assert one.trigger(SAME, "nobody", 12345) == []
    one.add(SAME, "a", INT64_MIN, b"x")
    assert one.trigger(SAME, "a", INT64_MAX) == []
    assert payloads(one.trigger(SAME, "a", INT64_MIN)) == [b"x"]


def test_a_window_is_used_anew(one):
    for round in range(3):
        one.add(SAME, "a", 0, str(round).encode())
        assert payloads(one.trigger(SAME, "a", 0)) == [str(round).encode()]


def test_windows_meet_over_connections_and_slots(bridged, client):
    sidecar = bridged(PIPELINE, slots=3)
    for key in ("a", "b", "c", "d", "e", "f"):
        for payload in (b"1", b"2", b"3"):
            client(sidecar.tcp if payload == b"2" else sidecar.unix).add(SAME, key, 5, payload)
        assert payloads(client(sidecar.tcp).trigger(SAME, key, 5)) == [b"1", b"2", b"3"]


def test_a_window_whose_trigger_fails_stays(one):
    one.add(DOUBLE, "a", 0, b'{"v": 1}')
    one.add(DOUBLE, "a", 0, b"no JSON")
    for _ in range(2):
        code, words = refused(one.trigger, DOUBLE, "a", 0)
        assert code == grpc.StatusCode.INTERNAL
        assert 'segment "double" step "double" record 1:' in words


def test_windows_are_bounded(bridged, client):
    """What does not fit is refused in words; what is there stays, and triggering makes room again."""
    one = client(bridged(PIPELINE, flags=["--window-bytes", "64KiB"]).unix)
    kept = 0
    with pytest.raises(grpc.RpcError) as caught:
        while kept < 1000:
            one.add(SAME, "a", 0, bytes(1000))
            kept += 1
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--window-bytes" in caught.value.details()
    assert 40 < kept < 70
    assert len(one.trigger(SAME, "a", 0)) == kept
    one.add(SAME, "a", 0, b"again")


def test_windows_age(bridged, client):
    sidecar = bridged(PIPELINE, flags=["--window-age", "20ms"])
    one = client(sidecar.unix)
    one.add(SAME, "a", 0, b"1")
    sidecar.wait_for_log("windows were dropped")
    assert one.trigger(SAME, "a", 0) == []


# ---- Refusals --------------------------------------------------------------------------------------------------------


def test_an_unknown_segment(one):
    for segment in (SEGMENTS, 2**32 - 1):
        for call in (
            lambda: one.process(segment, b"x"),
            lambda: one.watermark(segment, 1),
            lambda: one.add(segment, "k", 0, b"x"),
            lambda: one.trigger(segment, "k", 0),
        ):
            code, words = refused(call)
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert f"segment {segment}" in words and f"0 to {SEGMENTS - 1}" in words


def test_a_step_that_fails(one):
    """INTERNAL, in words that name segment, step and record; the next call is served as if nothing had been."""
    code, words = refused(one.process, DOUBLE, b"no JSON")
    assert code == grpc.StatusCode.INTERNAL
    assert words.startswith('segment "double" step "double" record 0: ')
    code, words = refused(one.process, DOUBLE, b'{"v": {}}')
    assert code == grpc.StatusCode.INTERNAL and "cannot be multiplied" in words
    assert json.loads(one.process(DOUBLE, b'{"v": 1}')[0].payload) == {"v": 2}


def test_invalid_utf8_in_json(one):
    for payload in (b'{"v": 1, "s": "\xff"}', b'{"v": 1, "\xc3": 2}', b"\xff\xfe{}", b'{"v": 1, "s": "\xed\xa0\x80"}'):
        code, words = refused(one.process, DOUBLE, payload)
        assert code == grpc.StatusCode.INTERNAL and 'step "double"' in words
        assert payloads(one.process(SAME, payload)) == [payload]  # bytes are nobody's business where nothing reads them
    assert refused(one.process, UPPER, b"\xff")[0] == grpc.StatusCode.INTERNAL


def test_segments_of_sessions_refuse(sidecar, client):
    one = client(sidecar.unix)
    session = one.session(sidecar, SAME)
    for call in (
        lambda: one.process(SAME, b"x"),
        lambda: one.watermark(SAME, 1),
        lambda: one.add(SAME, "k", 0, b"x"),
        lambda: one.trigger(SAME, "k", 0),
    ):
        code, words = refused(call)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert f"segment {SAME}" in words and "session" in words
    assert payloads(one.process(UPPER, b"x")) == [b"X"]
    assert session.finish()[0] == grpc.StatusCode.OK


def test_bridge_slot(bridged, client):
    """The metadata says which slot holds the state of a call."""
    sidecar = bridged(PIPELINE, slots=2)
    first = client(sidecar.unix, metadata=[("bridge-slot", "0")])
    second = client(sidecar.unix, metadata=[("bridge-slot", "1")])
    also_first = client(sidecar.tcp, metadata=[("bridge-slot", "0")])
    assert first.process(BUNDLE, b"1") == []
    assert also_first.process(BUNDLE, b"2") == []
    assert second.process(BUNDLE, b"9") == []
    assert payloads(first.process(BUNDLE, b"3")) == [b"[1,2,3]"]
    second.add(SAME, "k", 0, b"x")
    assert first.trigger(SAME, "k", 0) == []
    assert payloads(second.trigger(SAME, "k", 0)) == [b"x"]


def test_a_bridge_slot_that_is_none(sidecar, client):
    for value in ("1", "-1", "x", "", "0x0", "0" * 30):
        one = client(sidecar.unix, metadata=[("bridge-slot", value)])
        code, words = refused(one.process, SAME, b"x")
        assert code == grpc.StatusCode.INVALID_ARGUMENT, value
        assert "bridge-slot" in words, value


# ---- Bad input -------------------------------------------------------------------------------------------------------

MALFORMED = [
    b"\x0a",  # a length without bytes
    b"\xff" * 20,  # no varint
    b"\x0a\x05abc",  # cut short
    b"\x0b\x0c",  # a group
    b"\x07",  # a type that does not exist
    b"\x15\x00\x00\x00\x00\x1d\x00\x00\x00\x00\x0d\x00\x00\x00\x00",  # every field of another type
]


def test_malformed_requests(one):
    for method in METHODS:
        for data in MALFORMED:
            code, words = refused(raw, one, method, data)
            assert code == grpc.StatusCode.INVALID_ARGUMENT, (method, data)
            assert words
    assert payloads(one.process(SAME, b"x")) == [b"x"]


def test_malformed_message_within(one):
    for inner in (b"\x0a\x05abc", b"\x12\x03\x0a\x01\xff", b"\x12\x06\x0a\x01k\x12\x01\xff", b"\x08\x01"):
        request = b"\x0a" + bytes([len(inner)]) + inner
        for method in ("ProcessMessage", "AddToWindow"):
            code, words = refused(raw, one, method, request)
            assert code == grpc.StatusCode.INVALID_ARGUMENT and words


def test_no_message(one):
    for method in ("ProcessMessage", "AddToWindow"):
        code, words = refused(raw, one, method, b"")
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "message" in words


def test_unknown_fields_are_skipped(one, proto):
    request = proto.worker.ProcessMessageRequest(message=proto.worker.Message(payload=b"x"), segment_id=UPPER)
    unknown = b"\xf8\x01\x05" + b"\xfa\x01\x03abc"  # field 31, as a number and as bytes
    reply = raw(one, "ProcessMessage", unknown + request.SerializeToString() + unknown)
    assert proto.worker.ProcessMessageResponse.FromString(reply).messages[0].payload == b"X"


def test_unknown_methods(one):
    for path in ("/flink_worker.FlinkWorkerService/Nothing", "/nobody.Service/ProcessMessage"):
        code, _ = refused(one.channel.unary_unary(path), b"", timeout=PATIENCE)
        assert code == grpc.StatusCode.UNIMPLEMENTED


def test_oversize_requests(one):
    limit = 4 * 1024 * 1024 - 64
    large = bytes(limit - 64)
    assert payloads(one.process(SAME, large)) == [large]
    for size in (limit, 5_000_000, 40_000_000):
        code, words = refused(one.process, SAME, bytes(size))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and words
    assert payloads(one.process(SAME, b"x")) == [b"x"]


def test_oversize_replies(one):
    code, words = refused(one.process, FAN, b'{"n": 60, "pad": 100000}')
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and words
    assert len(one.process(FAN, b'{"n": 30, "pad": 100000}')) == 30


def test_10_mb_of_headers(one):
    """One header of 10 MB, a hundred thousand small ones: too large. 1,001 headers: too many. 1,000: fine."""
    assert refused(one.process, SAME, b"", headers={"h": "x" * 10_000_000})[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    many = {f"header-{i:06}": "x" * 80 for i in range(100_000)}
    assert refused(one.process, SAME, b"", headers=many)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    code, words = refused(one.process, SAME, b"", headers={str(i): "" for i in range(1001)})
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "1000 headers" in words
    fine = {str(i): "x" * 1000 for i in range(1000)}
    assert dict(one.process(SAME, b"", headers=fine)[0].headers) == fine
    assert dict(one.process(DOUBLE, b'{"v": 1}', headers=fine)[0].headers) == fine


def test_10_mb_of_metadata(sidecar, client):
    """Refused by gRPC itself; other connections do not notice."""
    other = client(sidecar.unix)
    assert payloads(other.process(SAME, b"x")) == [b"x"]
    one = client(sidecar.unix, metadata=[("big", "x" * 10_000_000)])
    code, _ = refused(one.process, SAME, b"x")
    assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
    assert payloads(other.process(SAME, b"x")) == [b"x"]


def test_extreme_times(one):
    for time in (INT64_MIN, INT64_MIN + 1, -1, 0, INT64_MAX - 1, INT64_MAX):
        for segment, payload in ((SAME, b"x"), (DOUBLE, b'{"v": 1}')):
            [message] = one.process(segment, payload, timestamp=time)
            assert message.timestamp == time
        assert one.watermark(BUNDLE, time) == []
    out = []  # the clock has come to its end, so a batch waits for the next message at most
    for payload, time in ((b"1", INT64_MIN), (b"2", INT64_MAX), (b"3", 0), (b"4", 0)):
        out += [value for message in one.process(BUNDLE, payload, timestamp=time) for value in json.loads(message.payload)]
    assert out in ([1, 2, 3], [1, 2, 3, 4])


def test_the_first_and_the_last_watermark(bridged, client):
    """What came before any watermark is due at the first one that is late enough, the largest included."""
    one = client(bridged(PIPELINE).unix)
    assert one.process(BUNDLE, b"1") == []
    assert one.watermark(BUNDLE, INT64_MIN) == []
    assert payloads(one.watermark(BUNDLE, INT64_MAX)) == [b"[1]"]
