"""The Session contract, flink_bridge.FlinkBridge, by a client that another implementation generated."""

import json
import os
import threading
import uuid

import grpc
import pytest
from conftest import PATIENCE, alive, next_token, wait_until
from state_table import key_group
from wire_pipeline import AFTER, BUNDLE, BY_USER, DOUBLE, FAN, INT64_MAX, INT64_MIN, PIPELINE, SAME, SEGMENTS, SPLIT, UPPER

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INTERNAL = grpc.StatusCode.INTERNAL

MESSAGE_MAX = 1024 * 1024 - 64


@pytest.fixture
def sidecar(bridged):
    return bridged(PIPELINE)


@pytest.fixture
def one(sidecar, client):
    return client(sidecar.unix)


@pytest.fixture
def bridge(proto):
    return proto.bridge


def failure(session, code, bridge):
    """The fatal Error that must come next and the words of the status behind it, which must be `code`."""
    message = session.receive("error")
    assert message.error.fatal
    ended, words = session.end()
    assert ended == code, words
    assert message.error.message and words
    return message.error


def refusal(one, sidecar, segment=SAME, **fields):
    """Sends an Open that must be refused; returns the status."""
    session = one.session(sidecar, segment, open=False)
    session.open(sidecar, segment, **fields)
    return session.end()


def raw(one, *messages):
    """A stream of any bytes; returns what came back and the status."""
    call = one.channel.stream_stream("/flink_bridge.FlinkBridge/Session", response_deserializer=one.proto.bridge.FromWorker.FromString)(
        iter(messages), timeout=PATIENCE
    )
    answers = []
    try:
        answers.extend(call)
    except grpc.RpcError:
        pass
    return answers, call.code(), call.details()


# ---- A whole life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_open_and_close(sidecar, client, address):
    session = client(getattr(sidecar, address)).session(sidecar, SAME)
    ack = session.ack.open_ack
    assert session.ack.seq == 1
    assert ack.epoch > 0 and ack.slot == 0
    assert ack.worker_pid in sidecar.processes() and alive(ack.worker_pid)
    assert ack.limits.max_message_bytes == MESSAGE_MAX
    assert 0 < ack.limits.max_record_bytes <= MESSAGE_MAX
    assert ack.code_version
    assert session.exchange(b"1", b"2", b"3") == [b"1", b"2", b"3"]
    assert session.finish() == (OK, "")


def test_every_kind_of_message(sidecar, one, bridge):
    session = one.session(sidecar, UPPER)
    assert session.exchange(b"a", b"b") == [b"A", b"B"]
    assert session.results(session.send(watermark=bridge.Watermark(timestamp=5))) == []
    assert session.results(session.send(watermark_status=bridge.WatermarkStatus(idle=True))) == []
    assert session.results(session.send(watermark_status=bridge.WatermarkStatus(idle=False))) == []
    assert session.results(session.send(timer_tick=bridge.TimerTick())) == []
    seq = session.send(barrier=bridge.Barrier(checkpoint_id=42))
    ack = session.receive("barrier_ack")
    assert (ack.seq, ack.barrier_ack.checkpoint_id) == (seq, 42)
    assert session.results(session.send(batch=bridge.Batch())) == []
    seq = session.send(end_input=bridge.EndInput())
    assert session.receive("end_ack").seq == seq
    assert session.finish() == (OK, "")


def test_records_keep_everything(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    sent = [
        bridge.Record(payload=b"\x00\xff", headers={"a": "1", "": "", "ü": "日本"}, timestamp=0),
        bridge.Record(),
        bridge.Record(key=b"", key_hash=-1, key_group=127, timestamp=INT64_MAX),
        bridge.Record(payload=b"p" * 10_000, key=b"k" * 300, key_hash=2**31 - 1, timestamp=-1),
    ]
    assert session.results(session.send_records(*sent)) == sent
    assert session.finish()[0] == OK


def test_answers_come_in_order(sidecar, one):
    """A client may have many messages in flight."""
    session = one.session(sidecar, UPPER)
    sent = [session.send_records(b"x%d" % i, b"y%d" % i) for i in range(400)]
    for i, seq in enumerate(sent):
        assert [record.payload for record in session.results(seq)] == [b"X%d" % i, b"Y%d" % i]
    assert session.finish()[0] == OK


def test_all_is_answered_before_close(sidecar, one):
    session = one.session(sidecar, SAME)
    sent = [session.send_records(b"%d" % i) for i in range(100)]
    session.send(close=session.proto.Close(reason="all sent"))
    session.half_close()
    assert [message.seq for message in session.call] == sent
    assert session.end()[0] == OK


def test_the_end_of_sending_is_a_close(sidecar, one):
    session = one.session(sidecar, SAME)
    sent = [session.send_records(b"%d" % i) for i in range(100)]
    session.half_close()
    assert [message.seq for message in session.call] == sent
    assert session.end()[0] == OK


def test_sessions_of_all_segments_at_once(sidecar, client):
    """Each of many sessions over several connections gets its own answers."""
    sessions = [client((sidecar.unix, sidecar.tcp)[i % 2]).session(sidecar, i) for i in (SAME, UPPER, DOUBLE, FAN, SPLIT)]
    for round in range(50):
        for session in sessions:
            session.send_records(b'{"v":1,"n":2,"pad":1}')
    for round in range(50):
        same, upper, double, fan, split = [[record.payload for record in session.results()] for session in sessions]
        assert same == split == [b'{"v":1,"n":2,"pad":1}'] and upper == [b'{"V":1,"N":2,"PAD":1}']
        assert fan == [b'{"i":0,"pad":"x"}', b'{"i":1,"pad":"x"}'] and double == [b'{"v":2,"n":2,"pad":1}']
    assert len({session.ack.open_ack.epoch for session in sessions}) == len(sessions)
    assert [session.finish()[0] for session in sessions] == [OK] * len(sessions)


# ---- What a chain does with records ------------------------------------------------------------------------------------


def test_keys_and_routes(sidecar, one):
    session = one.session(sidecar, BY_USER)
    ann, bob, again = session.results(session.send_records(b'{"user":"ann"}', b'{"user":"bob"}', b'{"user":"ann"}'))
    assert (ann.key, bob.key) == (b"ann", b"bob")
    assert ann.key_hash == again.key_hash != bob.key_hash
    assert ann.key_group == 0  # Flink's to compute, by the max parallelism of what comes next
    ann.key_group = key_group(ann.key_hash)
    keyed = one.session(sidecar, AFTER)
    [seen] = keyed.results(keyed.send_records(ann))
    assert (seen.key, seen.key_hash, seen.key_group) == (b"ann", ann.key_hash, ann.key_group)
    split = one.session(sidecar, SPLIT)
    assert [r.route for r in split.results(split.send_records(b'{"v":1}', b'{"v":101}', b'{"v":2}'))] == [1, 0, 1]
    for each in (session, keyed, split):
        assert each.finish()[0] == OK


def test_many_outputs_take_many_messages(sidecar, one):
    """One record that fans out to more than a message holds."""
    session = one.session(sidecar, FAN)
    seq = session.send_records(b'{"n": 30000, "pad": 100}', b'{"n": 1, "pad": 1}')
    numbers, messages = [], 0
    while True:
        message = session.receive("results")
        assert message.seq == seq and message.ByteSize() <= MESSAGE_MAX
        numbers += [json.loads(record.payload)["i"] for record in message.results.records]
        messages += 1
        if not message.results.more:
            break
        assert message.next_wakeup_ms == 0
    assert numbers == [*range(30000), 0] and messages >= 4
    assert session.exchange(b'{"n": 1, "pad": 3}') == [b'{"i":0,"pad":"xxx"}']
    assert session.finish()[0] == OK


def test_a_batch_waits_for_its_tick(sidecar, one, bridge):
    session = one.session(sidecar, BUNDLE)
    session.send_records(b"1", b"2")
    [empty] = [session.receive("results")]
    assert not empty.results.records
    assert empty.next_wakeup_ms == session.clock + 10_000
    session.clock = empty.next_wakeup_ms - 1
    early = session.send(timer_tick=bridge.TimerTick())
    message = session.receive("results")
    assert (message.seq, len(message.results.records), message.next_wakeup_ms) == (early, 0, empty.next_wakeup_ms)
    session.clock += 1
    due = session.send(timer_tick=bridge.TimerTick())
    message = session.receive("results")
    assert (message.seq, message.next_wakeup_ms) == (due, 0)
    assert [record.payload for record in message.results.records] == [b"[1,2]"]
    assert session.exchange(b"1", b"2", b"3", b"4") == [b"[1,2,3]"]
    assert session.finish()[0] == OK


def test_a_barrier_leaves_a_batch_open(sidecar, one, bridge):
    """It closes when it would have closed without the barrier."""
    session = one.session(sidecar, BUNDLE)
    assert session.exchange(b"1") == []
    seq = session.send(barrier=bridge.Barrier(checkpoint_id=2**64 - 1))
    ack = session.receive("barrier_ack")
    assert (ack.seq, ack.barrier_ack.checkpoint_id) == (seq, 2**64 - 1)
    assert ack.next_wakeup_ms == session.clock + 10_000
    assert session.exchange(b"2") == []
    assert session.exchange(b"3") == [b"[1,2,3]"]
    assert session.finish()[0] == OK


def test_a_barrier_takes_along_what_is_held(sidecar, one):
    """Nothing is let go for a barrier: what steps hold is state, goes out as such, and comes out when its time has come."""
    session = one.session(sidecar, BUNDLE)
    assert session.exchange(b"1") == []
    records, table = session.barrier(2**64 - 1)
    assert records == [] and len(table.state("bundle", "pending")) == 1
    assert session.exchange(b"2") == []
    before = session.deltas
    records, table = session.barrier(7)
    assert records == [] and session.deltas > before
    before = session.deltas
    assert session.barrier(8)[1].entries.keys() == table.entries.keys() and session.deltas == before
    assert session.exchange(b"3") == [b"[1,2,3]"]
    assert session.barrier(9)[1].state("bundle", "pending") == {}
    assert session.finish()[0] == OK


def test_end_of_input(sidecar, one, bridge):
    """All comes out, and then the session lives on: time and barriers may come, records may not."""
    session = one.session(sidecar, BUNDLE)
    assert session.exchange(b"1") == []
    seq = session.send(end_input=bridge.EndInput())
    flushed = session.receive("results")
    assert (flushed.seq, [record.payload for record in flushed.results.records]) == (seq, [b"[1]"])
    assert session.receive("end_ack").seq == seq
    assert session.results(session.send(watermark=bridge.Watermark(timestamp=INT64_MAX))) == []
    session.send(barrier=bridge.Barrier(checkpoint_id=1))
    assert session.receive("barrier_ack").barrier_ack.checkpoint_id == 1
    assert session.results(session.send(timer_tick=bridge.TimerTick())) == []
    session.send_records(b"2")
    error = failure(session, INVALID, bridge)
    assert error.code == bridge.ERROR_STATE and "EndInput" in error.message


def test_end_of_input_comes_once(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    session.send(end_input=bridge.EndInput())
    session.receive("end_ack")
    session.send(end_input=bridge.EndInput())
    assert failure(session, INVALID, bridge).code == bridge.ERROR_STATE


def test_a_step_that_fails(sidecar, one, bridge):
    session = one.session(sidecar, DOUBLE)
    assert session.exchange(b'{"v": 1}') == [b'{"v":2}']
    seq = session.send_records(b'{"v": 1}', b'{"v": 2}', b"no JSON", b'{"v": 3}')
    error = failure(session, INTERNAL, bridge)
    assert (error.code, error.seq, error.record, error.step) == (bridge.ERROR_STEP, seq, 2, "double")
    fresh = one.session(sidecar, DOUBLE)
    assert fresh.exchange(b'{"v": 1}') == [b'{"v":2}']
    assert fresh.finish()[0] == OK


def test_invalid_utf8_in_json(sidecar, one, bridge):
    for payload in (b'{"v": 1, "s": "\xff"}', b'{"v": 1, "\xc3": 2}', b'{"v": 1, "s": "\xed\xa0\x80"}'):
        session = one.session(sidecar, DOUBLE)
        session.send_records(payload)
        assert failure(session, INTERNAL, bridge).code == bridge.ERROR_STEP


def test_words_stay_utf8(sidecar, one, bridge):
    """Error is a protobuf string, and a client's library refuses one that was cut within a character."""
    for start in range(4):
        text = "x" * start + "日本語🌉" * 3000
        session = one.session(sidecar, DOUBLE)
        session.send_records(text.encode())
        assert failure(session, INTERNAL, bridge).step == "double"
        code, words = refusal(one, sidecar, pipeline=text[:500])
        assert code == PRECONDITION and '"wire"' in words
        assert "日本" in words and not {letter for letter in words if letter > "~"} - set(text)


def test_extreme_event_times(sidecar, one, bridge):
    session = one.session(sidecar, DOUBLE)
    for time in (INT64_MIN, INT64_MIN + 1, -1, 0, INT64_MAX - 1, INT64_MAX):
        [record] = session.results(session.send_records(b'{"v": 1}', timestamp=time))
        assert (record.timestamp if record.HasField("timestamp") else INT64_MIN) == time  # the least one is none
        assert session.results(session.send(watermark=bridge.Watermark(timestamp=time))) == []
        assert session.results(session.send(watermark=bridge.Watermark(timestamp=time))) == []
    assert session.finish()[0] == OK


def test_the_end_of_the_clock(sidecar, one, bridge):
    """Processing time at the limit of int64: what waits ten seconds more cannot wait, but nothing breaks."""
    session = one.session(sidecar, BUNDLE)
    session.clock = INT64_MAX
    assert session.exchange(b"1") == []
    assert [record.payload for record in session.results(session.send(timer_tick=bridge.TimerTick()))] == [b"[1]"]
    assert session.finish()[0] == OK


# ---- Rules -------------------------------------------------------------------------------------------------------------


def test_seq_is_strict(sidecar, one, bridge):
    """After Open and one Batch only 3 may come."""
    for seq in (0, 1, 2, 4, 2**63, 2**64 - 1):
        session = one.session(sidecar, SAME)
        assert session.exchange(b"1") == [b"1"]
        session.send(seq=seq, batch=bridge.Batch(records=[bridge.Record(payload=b"2")]))
        error = failure(session, INVALID, bridge)
        assert error.code == bridge.ERROR_SEQUENCE and str(seq) in error.message and "3" in error.message


def test_processing_time_does_not_go_back(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    session.clock = 1000
    assert session.exchange(b"1") == [b"1"]
    assert session.exchange(b"2") == [b"2"]
    session.clock = 999
    session.send_records(b"3")
    error = failure(session, INVALID, bridge)
    assert error.code == bridge.ERROR_SEQUENCE and "1000" in error.message and "999" in error.message


def test_the_watermark_does_not_go_back(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    session.results(session.send(watermark=bridge.Watermark(timestamp=-5)))
    session.results(session.send(watermark=bridge.Watermark(timestamp=-5)))
    session.send(watermark=bridge.Watermark(timestamp=-6))
    error = failure(session, INVALID, bridge)
    assert error.code == bridge.ERROR_SEQUENCE and "-5" in error.message and "-6" in error.message


def test_records_of_a_keyed_segment(sidecar, one, bridge):
    wrong = [
        bridge.Record(payload=b"{}"),
        bridge.Record(payload=b"{}", key=b"k", key_hash=153, key_group=10),
        bridge.Record(payload=b"{}", key=b"k", key_hash=153, key_group=5),
        bridge.Record(payload=b"{}", key=b"k", key_hash=153, key_group=9, input=1),
    ]
    for record in wrong:
        session = one.session(sidecar, AFTER, key_group_first=0, key_group_last=9)
        good = bridge.Record(payload=b"{}", key=b"k", key_hash=153, key_group=9)  # murmur(153) % 128 is 9
        assert len(session.results(session.send_records(good))) == 1
        session.send_records(good, record)
        error = failure(session, INVALID, bridge)
        assert (error.code, error.record) == (bridge.ERROR_MALFORMED, 1)


def test_open_comes_once(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    session.open(sidecar, SAME)
    assert failure(session, INVALID, bridge).code == bridge.ERROR_STATE


def test_open_comes_first(sidecar, one, bridge):
    session = one.session(sidecar, SAME, open=False)
    session.send_records(b"1")
    code, words = session.end()
    assert code == INVALID and "Open" in words
    session = one.session(sidecar, SAME, open=False)
    session.half_close()
    code, words = session.end()
    assert code == INVALID and "Open" in words


def test_a_message_of_no_kind(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    session.send()
    assert failure(session, INVALID, bridge).code == bridge.ERROR_MALFORMED


UNFIT = [
    (dict(protocol_version=0), PRECONDITION, "version"),
    (dict(protocol_version=3), PRECONDITION, "version 3"),
    (dict(pipeline="other"), PRECONDITION, '"other"'),
    (dict(pipeline=""), PRECONDITION, '"wire"'),
    (dict(topology_hash="0" * 32), PRECONDITION, "topology"),
    (dict(topology_hash=""), PRECONDITION, "topology"),
    (dict(segment=SEGMENTS), INVALID, f"segment {SEGMENTS}"),
    (dict(segment=2**32 - 1), INVALID, "segment 4294967295"),
    (dict(subtask=1), INVALID, "subtask 1"),
    (dict(parallelism=0), INVALID, "parallelism"),
    (dict(max_parallelism=0), INVALID, "max parallelism"),
    (dict(max_parallelism=2**15 + 1), INVALID, "max parallelism"),
    (dict(key_group_first=5, key_group_last=4), INVALID, "key groups"),
    (dict(key_group_last=128), INVALID, "key groups"),
    (dict(job=""), INVALID, "job"),
    (dict(attempt_id=""), INVALID, "attempt_id"),
    (dict(allocation_id="x" * 257), INVALID, "allocation_id"),
    (dict(jvm_uuid=""), INVALID, "jvm_uuid"),
]


def test_an_open_that_does_not_fit(sidecar, one):
    """Refused in words, each of them, and the next one is served."""
    for fields, code, words in UNFIT:
        ended, said = refusal(one, sidecar, **fields)
        assert ended == code and words in said, (fields, said)
    assert one.session(sidecar, SAME).finish()[0] == OK


# ---- Fencing and placement ---------------------------------------------------------------------------------------------


def test_the_newer_open_wins(sidecar, client):
    """Of one subtask, whatever connection it comes by; other subtasks and segments are left alone."""
    old = client(sidecar.unix).session(sidecar, SAME)
    other_segment = client(sidecar.unix).session(sidecar, UPPER)
    other_subtask = client(sidecar.unix).session(sidecar, SAME, parallelism=2, subtask=1)
    new = client(sidecar.tcp).session(sidecar, SAME)
    code, words = old.end()
    assert code == PRECONDITION and "fenced" in words and "subtask 0" in words
    assert new.ack.open_ack.epoch > old.ack.open_ack.epoch
    for session, payload in ((new, b"x"), (other_segment, b"X"), (other_subtask, b"x")):
        assert session.exchange(b"x") == [payload]
        assert session.finish()[0] == OK


def test_an_older_open_loses(sidecar, one):
    """Opens that overtook one another: the token decides."""
    older, newer = next_token(), next_token()
    session = one.session(sidecar, SAME, open_token=newer)
    code, words = refusal(one, sidecar, open_token=older)
    assert code == PRECONDITION and "fenced" in words
    assert session.exchange(b"x") == [b"x"]
    assert session.finish()[0] == OK


def test_a_zombie_writes_nothing(sidecar, one, bridge):
    """What a fenced session still sends has no effect, and its sender is told."""
    zombie = one.session(sidecar, BUNDLE)
    assert zombie.exchange(b"0") == []
    successor = one.session(sidecar, BUNDLE)
    for _ in range(10):
        zombie.send_records(b"0")
    assert zombie.end()[0] == PRECONDITION
    assert successor.exchange(b"1", b"2", b"3") == [b"[1,2,3]"]
    assert successor.finish()[0] == OK


def test_a_new_process_takes_over(sidecar, client):
    """All sessions of the old one end, of every segment, and it is refused from then on."""
    before = client(sidecar.unix)
    old_jvm, new_jvm = str(uuid.uuid4()), str(uuid.uuid4())
    old = [before.session(sidecar, segment, jvm_uuid=old_jvm, open_token=1000) for segment in (SAME, UPPER)]
    after = client(sidecar.tcp).session(sidecar, SAME, jvm_uuid=new_jvm, open_token=1)
    for session in old:
        code, words = session.end()
        assert code == PRECONDITION and "fenced" in words
    code, words = refusal(before, sidecar, DOUBLE, jvm_uuid=old_jvm, open_token=1001)
    assert code == PRECONDITION and "fenced" in words
    assert after.exchange(b"x") == [b"x"]
    assert after.finish()[0] == OK


def test_one_allocation_is_one_slot(bridged, client):
    sidecar = bridged(PIPELINE, slots=2)
    one = client(sidecar.unix)
    first = one.session(sidecar, SAME, allocation_id="a")
    second = one.session(sidecar, UPPER, allocation_id="a")
    other = one.session(sidecar, SAME, allocation_id="b", parallelism=2, subtask=1)
    place = [(session.ack.open_ack.slot, session.ack.open_ack.worker_pid) for session in (first, second, other)]
    assert place[0] == place[1]
    assert place[2][0] != place[0][0] and place[2][1] != place[0][1]
    for session in (first, second, other):
        assert session.finish()[0] == OK


def test_an_open_waits_for_a_slot(sidecar, client):
    """The only slot is taken; when it is free the one that waits gets it, with a fresh worker."""
    holder = client(sidecar.unix).session(sidecar, SAME, allocation_id="a")
    waiting = client(sidecar.tcp).session(sidecar, UPPER, open=False)
    waiting.open(sidecar, UPPER, allocation_id="b")
    assert holder.exchange(b"x") == [b"x"]
    assert holder.finish()[0] == OK
    ack = waiting.receive("open_ack").open_ack
    assert (ack.slot, ack.worker_pid != holder.ack.open_ack.worker_pid) == (0, True)
    assert waiting.exchange(b"x") == [b"X"]
    assert waiting.finish()[0] == OK


def test_an_open_does_not_wait_for_ever(bridged, client):
    sidecar = bridged(PIPELINE, flags=["--open-wait", "1s"])
    holder = client(sidecar.unix).session(sidecar, SAME, allocation_id="a")
    code, words = refusal(client(sidecar.unix), sidecar, UPPER, allocation_id="b")
    assert code == EXHAUSTED and "slot" in words
    assert holder.finish()[0] == OK


def test_an_open_does_not_wait_for_ever_under_load(bridged, client):
    """What ends a wait is the clock, not a moment without traffic."""
    sidecar = bridged(PIPELINE, flags=["--open-wait", "1s"])
    one = client(sidecar.unix)
    holder = one.session(sidecar, SAME, allocation_id="a")
    busy, over, done = client(sidecar.tcp), threading.Event(), []

    def load():
        while not over.is_set():
            done.append(busy.process(UPPER, b"x"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(done) > 200, "the load")
        code, words = refusal(one, sidecar, DOUBLE, allocation_id="b")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert code == EXHAUSTED and "slot" in words
    assert holder.finish()[0] == OK


def test_sessions_per_slot_are_bounded(bridged, client):
    sidecar = bridged(PIPELINE, flags=["--sessions-per-slot", SEGMENTS])
    one = client(sidecar.unix)
    held = [one.session(sidecar, segment) for segment in range(SEGMENTS)]
    code, words = refusal(one, sidecar, SAME, parallelism=2, subtask=1)
    assert code == EXHAUSTED and words
    for session in held:
        assert session.finish()[0] == OK


def test_a_client_that_vanishes_frees_its_place(sidecar, client):
    """Its subtask can be opened again by the same process at once, also by one with another allocation."""
    gone = client(sidecar.unix)
    gone.session(sidecar, SAME, allocation_id="a").send_records(*[b"x" * 1000] * 100)
    gone.close()
    session = client(sidecar.unix).session(sidecar, SAME, allocation_id="b")
    assert session.exchange(b"x") == [b"x"]
    assert session.finish()[0] == OK


# ---- Sizes -------------------------------------------------------------------------------------------------------------


def batch_of(bridge, seq, size):
    """A Batch message of exactly so many bytes, in two records."""
    half = bridge.Record(payload=bytes(size // 2))
    last = size - size // 2
    while True:
        records = [half, bridge.Record(payload=bytes(last))]
        message = bridge.ToWorker(seq=seq, processing_time_ms=1, batch=bridge.Batch(records=records))
        if message.ByteSize() == size:
            return message
        last += size - message.ByteSize()


def test_the_largest_message_and_record(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    session.seq += 1
    message = batch_of(bridge, session.seq, MESSAGE_MAX)
    session.outgoing.put(message)
    assert session.results(session.seq) == list(message.batch.records)
    largest = bridge.Record(payload=bytes(session.ack.open_ack.limits.max_record_bytes - 4))
    assert largest.ByteSize() == session.ack.open_ack.limits.max_record_bytes
    assert session.results(session.send_records(largest)) == [largest]
    assert session.finish()[0] == OK


def test_a_message_beyond_the_limit(sidecar, one, bridge):
    for size in (MESSAGE_MAX + 1, 5_000_000, 40_000_000):
        session = one.session(sidecar, SAME)
        assert session.exchange(b"x") == [b"x"]
        session.outgoing.put(batch_of(bridge, 3, size))
        code, words = session.end()
        assert code == EXHAUSTED and words, size
    assert one.session(sidecar, SAME).exchange(b"x") == [b"x"]


def test_records_beyond_their_limit(bridged, client, bridge):
    sidecar = bridged(PIPELINE, flags=["--record-max", "1000"])
    one = client(sidecar.unix)
    session = one.session(sidecar, SAME)
    assert session.ack.open_ack.limits.max_record_bytes == 1000
    assert session.exchange(b"x" * 900) == [b"x" * 900]
    session.send_records(b"x", b"x" * 1001)
    error = failure(session, EXHAUSTED, bridge)
    assert (error.code, error.record) == (bridge.ERROR_TOO_LARGE, 1)
    session = one.session(sidecar, FAN)
    session.send_records(b'{"n": 1, "pad": 200000}')
    error = failure(session, EXHAUSTED, bridge)
    assert error.code == bridge.ERROR_TOO_LARGE and "record" in error.message


def test_too_many_headers(sidecar, one, bridge):
    session = one.session(sidecar, SAME)
    fine = bridge.Record(headers={str(i): "x" for i in range(1000)})
    assert session.results(session.send_records(fine)) == [fine]
    session.send_records(fine, bridge.Record(headers={str(i): "x" for i in range(1001)}))
    error = failure(session, INVALID, bridge)
    assert (error.code, error.record) == (bridge.ERROR_MALFORMED, 1) and "1000 headers" in error.message


def test_10_mb_of_headers(sidecar, client, bridge):
    """In a record, and as metadata of the stream, which gRPC refuses by itself; other connections do not notice."""
    steady = client(sidecar.unix).session(sidecar, UPPER)
    one = client(sidecar.unix)
    session = one.session(sidecar, SAME)
    session.send_records(bridge.Record(headers={"h": "x" * 10_000_000}))
    assert session.end()[0] == EXHAUSTED
    assert one.session(sidecar, SAME).exchange(b"x") == [b"x"]
    session = one.session(sidecar, SAME, open=False, metadata=[("big", "x" * 10_000_000)])
    session.open(sidecar, SAME)
    assert session.end()[0] != OK
    assert steady.exchange(b"x") == [b"X"]
    assert steady.finish()[0] == OK


# ---- Malformed bytes ---------------------------------------------------------------------------------------------------


def test_a_first_message_that_is_malformed(one):
    for data in (b"\xff" * 20, b"\x0a\x05abc", b"\x1a\x05abc", b"\x0b", b""):
        answers, code, words = raw(one, data)
        assert (answers, code) == ([], INVALID) and words, data


def open_bytes(sidecar, bridge, segment, token=1):
    """An Open that is taken, as bytes."""
    values = dict(
        protocol_version=2, job="job", pipeline="wire", segment=segment, topology_hash=sidecar.topology_hash, allocation_id="a",
        attempt_id="1", parallelism=1, max_parallelism=128, key_group_last=127, jvm_uuid="raw", open_token=token,
    )  # fmt: skip
    return bridge.ToWorker(seq=1, open=bridge.Open(**values)).SerializeToString()


BROKEN = [
    b"\x08\x02\x32\x05abc",  # a Batch cut short
    b"\x08\x02\x32\x03\x0a\x05a",  # a record cut short
    b"\x08\x02\x32\x02\x08\x01",  # records as a number
    b"\x08\x02\x32\x05\x0a\x03\x0a\x09x",  # a payload longer than its record
    b"\x08\x02\x32\x07\x0a\x05\x12\x03\x0a\x01\xff",  # a header that is not UTF-8
    b"\x08\x02\x3a\x02\x0a\x00",  # a watermark that is bytes
    b"\x08\x02\x42\x02\x0a\x00",  # a status that is bytes
    b"\x08\x02\x4a\x01\x0a",  # a tick cut short
    b"\x08\x02\x52\x02\x0a\x00",  # a barrier that is bytes
    b"\x08\x02\x62\x03\x0a\x01\xff",  # a reason that is not UTF-8
    b"\x08\x02\x4a\x00\x4a\x00",  # two kinds
    b"\xff\xff\xff",  # nothing at all
    b"\x08\x02\x0b",  # a group
]


def test_a_later_message_that_is_malformed(sidecar, one, bridge):
    for number, body in enumerate(BROKEN):
        answers, code, words = raw(one, open_bytes(sidecar, bridge, SAME, number), body)
        assert code == INVALID and words, body
        ack, error = answers
        assert ack.WhichOneof("kind") == "open_ack"
        assert error.error.fatal and error.error.code == bridge.ERROR_MALFORMED and error.error.message, body


def test_unknown_fields_are_skipped(sidecar, one, bridge):
    unknown = b"\xf8\x01\x05" + b"\xfa\x01\x03abc"
    opening = open_bytes(sidecar, bridge, UPPER)
    record = b"\x0a\x01x" + unknown
    batch = unknown + b"\x0a" + bytes([len(record)]) + record + unknown
    answers, code, words = raw(one, opening + unknown, b"\x08\x02" + unknown + b"\x32" + bytes([len(batch)]) + batch)
    assert code == OK, words
    assert [r.payload for r in answers[1].results.records] == [b"X"]


def test_other_processes_are_none_the_wiser(sidecar, client, bridge):
    """After all that, a session and a call beside it were served all along by the same worker."""
    one = client(sidecar.unix)
    steady = one.session(sidecar, UPPER)
    for payload in (b"no JSON", b"\xff", b""):
        failing = one.session(sidecar, DOUBLE)
        failing.send_records(payload)
        failure(failing, INTERNAL, bridge)
        assert steady.exchange(b"x") == [b"X"]
    again = one.session(sidecar, DOUBLE)
    assert again.ack.open_ack.worker_pid == steady.ack.open_ack.worker_pid
    assert os.path.exists(f"/proc/{again.ack.open_ack.worker_pid}")
    assert (steady.finish()[0], again.finish()[0]) == (OK, OK)
