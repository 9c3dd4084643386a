"""State on its way to the client and back: barriers, deltas, restores, rescaling; sidecars and workers that are killed in between."""

import collections
import json
import os
import random
import signal
import subprocess
import threading

import grpc
import pytest
from conftest import BRIDGECTL, wait_until
from state_table import BY_KEY, StateTable, checksum_of, chunks, groups_of, key_group, key_hash, share, subtask_of

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

PIPELINE = """
name: state
sources:
  in: {kind: generator, count: 1}
steps:
  - {name: by_user, kind: key_by, key: .user}
  - {name: once, kind: dedup, key: .id}
  - {name: sums, kind: aggregate, fields: {n: count, total: sum(.v)}}
  - {name: bundle, kind: batch, size: 3, time: 10s}
  - {name: by_shop, kind: key_by, from: in, key: .shop}
  - {name: hourly, kind: aggregate, fields: {n: count, most: max(.v)}, emit: event_time, every: 10s}
  - {name: wide, kind: map, from: in, program: '{pad: ("x" * .n)}'}
  - {name: pairs, kind: batch, size: 2, bytes: 100MiB}
  - {name: narrow, kind: map, program: 'map(.pad | length)'}
sinks:
  out: {kind: discard, from: [bundle, hourly, narrow]}
"""

BY_USER, SUMS, BY_SHOP, HOURLY, PAIRS = range(5)
PHASES, CLOCK = 5, 1_000_000


@pytest.fixture
def bridge(proto):
    return proto.bridge


def clock_behind(phase):
    """Processing time when a phase is over."""
    return CLOCK + phase * 4000


class Subtasks:
    """A segment at some parallelism: sessions that share a job, fed by key."""

    def __init__(self, one, sidecar, segment, parallelism, tables=None, phase=0):
        self.sessions = []
        self.outputs = collections.defaultdict(list)  # by key, in order
        self.clock = clock_behind(phase - 1)
        for subtask in range(parallelism):
            first, last = groups_of(subtask, parallelism)
            restore = {} if tables is None else {"restore": share(tables, subtask, parallelism)}
            session = one.session(sidecar, segment, subtask=subtask, parallelism=parallelism, key_group_first=first,
                                  key_group_last=last, allocation_id=f"allocation-{subtask % 2}", **restore)  # fmt: skip
            session.clock = self.clock
            self.sessions.append(session)

    def take(self, records):
        for record in records:
            self.outputs[record.key].append((record.payload, record.timestamp))

    def feed(self, records):
        """Batches of keyed records: (key, payload, timestamp)."""
        for start in range(0, len(records), 50):
            parts = collections.defaultdict(list)
            for key, payload, timestamp in records[start : start + 50]:
                subtask = subtask_of(key_group(key_hash(key)), len(self.sessions))
                parts[subtask].append(self.sessions[subtask].keyed(key, payload, timestamp))
            for subtask, part in parts.items():
                session = self.sessions[subtask]
                self.take(session.results(session.send_records(*part)))

    def all(self, **message):
        """The same message to all."""
        for session in self.sessions:
            self.take(session.results(session.send(clock=self.clock, **message)))

    def checkpoint(self, number):
        """A barrier for all; the tables, and what came out until then."""
        tables = []
        for session in self.sessions:
            records, table = session.barrier(number)
            self.take(records)
            tables.append(table)
        return tables, {key: list(outputs) for key, outputs in self.outputs.items()}

    def finish(self):
        for session in self.sessions:
            assert session.finish()[0] == OK


def phase_records(phase):
    """What a phase brings: keys of several phases, some records twice."""
    dice = random.Random(phase)
    records = []
    for i in range(300):
        key = f"user-{dice.randrange(40 + 20 * phase)}"
        payload = {"id": dice.randrange(200), "v": dice.randrange(1000), "n": i}
        records.append((key.encode(), json.dumps(payload).encode(), phase * 10_000 + dice.randrange(10_000)))
    return records


def run_phase(bridge, subtasks, phase):
    """Feeds a phase: records, then time."""
    subtasks.feed(phase_records(phase))
    subtasks.clock = clock_behind(phase)
    subtasks.all(timer_tick=bridge.TimerTick())
    subtasks.all(watermark=bridge.Watermark(timestamp=phase * 10_000 + 9_000))


def undisturbed(one, sidecar, bridge, segment):
    """What comes out, by key, when nothing happens."""
    subtasks = Subtasks(one, sidecar, segment, 1)
    for phase in range(PHASES):
        run_phase(bridge, subtasks, phase)
        subtasks.checkpoint(phase + 1)
    subtasks.finish()
    return dict(subtasks.outputs)


@pytest.mark.parametrize("segment", [SUMS, HOURLY])
def test_restored_and_rescaled(bridged, client, bridge, segment):
    """Sidecars are killed in the middle of each phase; from the last checkpoint another goes on with more subtasks, or fewer."""
    sidecar = bridged(PIPELINE, slots=2)
    expected = undisturbed(client(sidecar.unix), sidecar, bridge, segment)
    assert sum(len(outputs) for outputs in expected.values()) > 100
    tables, outputs = None, {}
    for phase, parallelism in enumerate([1, 3, 2, 5, 1]):
        if phase > 0:
            sidecar.kill()
            sidecar = bridged(PIPELINE, slots=2, flags=["--delta-bytes", 2000] if phase % 2 else [])
        one = client(sidecar.unix)
        subtasks = Subtasks(one, sidecar, segment, parallelism, tables, phase)
        subtasks.outputs.update({key: list(before) for key, before in outputs.items()})
        run_phase(bridge, subtasks, phase)
        tables, outputs = subtasks.checkpoint(phase + 1)
        if phase + 1 < PHASES:
            subtasks.feed(phase_records(phase + 1)[:100])  # and this is lost
        else:
            subtasks.finish()
    assert outputs.keys() == expected.keys()
    for key in expected:
        assert outputs[key] == expected[key], key


def test_values_beyond_a_message(bridged, client, bridge):
    """Three megabytes in one entry go out in parts and come back in parts, as a piece of a list without keys, which comes anew."""
    sidecar = bridged(PIPELINE)
    session = client(sidecar.unix).session(sidecar, PAIRS)
    assert session.exchange(b'{"n": 3000000}') == []
    _, table = session.barrier()
    assert session.deltas >= 3
    assert max(len(entry.value) for entry in table.entries.values()) > 3_000_000
    sidecar.kill()
    sidecar = bridged(PIPELINE)
    session = client(sidecar.unix).session(sidecar, PAIRS, restore=share([table], 0, 1))
    assert all(table.manifest[name[0]].partition != BY_KEY for name in table.entries)
    assert session.table.entries == {}
    _, again = session.barrier()
    assert sorted(len(entry.value) for entry in again.entries.values()) == sorted(len(entry.value) for entry in table.entries.values())
    assert session.exchange(b'{"n": 5}') == [b"[3000000,5]"]
    assert session.barrier()[1].entries == {}
    assert session.finish()[0] == OK


def test_the_manifest_of_the_largest_segment_fits(bridged, client, bridge):
    """As many steps as a pipeline may have, with names as long as they may be, each with three states: its Open can restore."""
    steps = "".join(f"  - {{name: {f'step_{i}_'.ljust(63, 'x')}, kind: batch, size: 2, time: 10s}}\n" for i in range(999))
    head, tail = PIPELINE.split("  - {name: once")[0], "sinks:\n  out: {kind: discard}\n"
    sidecar = bridged(head + steps + tail)
    one = client(sidecar.unix)
    session = one.session(sidecar, 1)
    _, table = session.barrier()
    assert len(table.manifest) == 3 * 999
    assert session.finish()[0] == OK
    session = one.session(sidecar, 1, restore=share([table], 0, 1))
    assert session.barrier()[1].entries == {}
    assert session.finish()[0] == OK


def many(bridge, table, step, name, count):
    """A table with so many keys whose entries in one state are like the one that there is."""
    [value] = table.state(step, name).values()
    state = next(i for i, one in enumerate(table.manifest) if (one.step, one.name) == (step, name))
    entries = []
    for i in range(count):
        key = b"key-%d" % i
        hashed = key_hash(key)
        entries.append(bridge.StateEntry(state=state, key=key, key_hash=hashed, key_group=key_group(hashed), value=value))
    return StateTable(table.manifest, entries)


def owner(sidecar):
    """The worker that has slot 0."""
    return sidecar.stats_json("slots")["slots"][0]["pid"]


@pytest.fixture
def sample(bridged, client, bridge):
    """A sidecar, and the table of one key in the segment of sums: n 1, total 7."""
    sidecar = bridged(PIPELINE)
    session = client(sidecar.unix).session(sidecar, SUMS)
    session.exchange(session.keyed(b"one", b'{"id": 1, "v": 7}'))
    _, table = session.barrier()
    assert session.finish()[0] == OK
    return sidecar, table


def test_neighbours_go_on_while_one_restores(sample, client, bridge):
    """A session of the same worker is answered again and again between the chunks of another."""
    sidecar, table = sample
    large = many(bridge, table, "sums", "totals", 150_000)
    manifest, entries = share([large], 0, 1)
    ready = list(chunks(bridge, entries, size=500_000))
    one = client(sidecar.unix)
    restoring = one.session(sidecar, SUMS, subtask=1, parallelism=2, open=False)
    neighbour = client(sidecar.unix).session(sidecar, HOURLY)
    restoring.open(sidecar, SUMS, restored_checkpoint=3, state_manifest=manifest)
    assert restoring.receive("open_ack").open_ack.worker_pid == neighbour.ack.open_ack.worker_pid
    acked = threading.Event()

    def wait():
        assert restoring.receive("restore_ack").restore_ack.entries == len(entries)
        acked.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    for chunk in ready:
        restoring.send(restore_chunk=chunk)
    restoring.send(restore_end=bridge.RestoreEnd(entries=len(entries)))
    between = 0
    while not acked.is_set():
        assert neighbour.exchange(neighbour.keyed(b"shop", b'{"v": 1}')) == []
        between += 1
    waiting.join()
    assert between >= 3
    assert restoring.barrier()[1].entries == {}  # all of it is known to the client
    assert neighbour.finish()[0] == OK


def test_a_worker_dies_while_it_restores(sample, client, bridge):
    """Its heir goes on with the chunk at hand."""
    sidecar, table = sample
    large = many(bridge, table, "sums", "totals", 60_000)
    session = client(sidecar.unix).session(sidecar, SUMS, open=False)
    session.open(sidecar, SUMS, restored_checkpoint=3, state_manifest=large.manifest)
    pid = session.receive("open_ack").open_ack.worker_pid
    entries = list(large.entries.values())
    for i, chunk in enumerate(chunks(bridge, entries, size=100_000)):
        session.send(restore_chunk=chunk)
        if i == 5:
            os.kill(pid, signal.SIGKILL)
    session.send(restore_end=bridge.RestoreEnd(entries=len(entries)))
    assert session.receive("restore_ack").restore_ack.entries == len(entries)
    wait_until(lambda: owner(sidecar) not in (0, pid), "another owner to be noted")
    session.table = StateTable(large.manifest, entries)
    for i in (0, 1, 30_000, 59_999):
        session.exchange(session.keyed(b"key-%d" % i, b'{"id": 2, "v": 3}'))
    _, after = session.barrier()
    state = after.state("sums", "totals")
    assert len(state) == 60_000
    kept = {value for (key, _), value in state.items()}
    assert len(kept) == 2  # those of the four, and those of the others
    assert session.finish()[0] == OK


def test_a_worker_dies_while_it_answers_a_barrier(bridged, client, bridge):
    """Each change is told once, by the dead or by its heir; rings are so small that not all of it is told when it dies."""
    sidecar = bridged(PIPELINE, flags=["--delta-bytes", "1GiB", "--message-max", 32704])
    session = client(sidecar.unix).session(sidecar, SUMS)
    for start in range(0, 10_000, 200):
        keys = [b"key-%d" % i for i in range(start, start + 200)]
        session.results(session.send_records(*(session.keyed(key, b'{"id": 1, "v": 7}') for key in keys)))
    assert session.deltas == 0
    session.send(barrier=bridge.Barrier(checkpoint_id=9))
    session.receive("state_delta")
    pid = session.ack.open_ack.worker_pid
    os.kill(pid, signal.SIGKILL)
    assert session.receive("barrier_ack").barrier_ack.checkpoint_id == 9
    assert len(session.table.state("sums", "totals")) == 10_000
    assert len(session.table.state("once", "identities")) == 10_000
    wait_until(lambda: owner(sidecar) not in (0, pid), "another owner to be noted")
    before = session.deltas
    session.barrier(10)
    assert session.deltas == before
    assert session.finish()[0] == OK


def test_deltas_come_early(bridged, client, bridge):
    """Once more is unsent than --delta-bytes they come with whatever is answered, and little is left for the barrier."""
    sidecar = bridged(PIPELINE, flags=["--delta-bytes", "20KiB"])
    session = client(sidecar.unix).session(sidecar, SUMS)
    for start in range(0, 2000, 50):
        keys = [b"key-%d" % i for i in range(start, start + 50)]
        session.results(session.send_records(*(session.keyed(key, b'{"id": 1, "v": 7}') for key in keys)))
    early = len(session.table.state("sums", "totals"))
    assert session.deltas > 3 and 1500 < early < 2000
    _, table = session.barrier()
    assert len(table.state("sums", "totals")) == 2000
    assert session.finish()[0] == OK


# ---- What is refused ---------------------------------------------------------------------------------------------------


def refused(session, bridge, code=PRECONDITION):
    """The Error that ends a session, behind its OpenAck if that came, and whose status says the same."""
    message = session.receive()
    if message.WhichOneof("kind") == "open_ack":
        message = session.receive()
    assert message.error.fatal, message
    ended, words = session.end()
    assert ended == code and words == message.error.message
    return message.error


def restoring(client, sidecar, table, **fields):
    session = client(sidecar.unix).session(sidecar, SUMS, open=False)
    session.open(sidecar, SUMS, **(dict(restored_checkpoint=3, state_manifest=table.manifest) | fields))
    return session


def test_damaged_chunks(sample, client, bridge):
    sidecar, table = sample
    [chunk] = chunks(bridge, table.entries.values())
    chunk.checksum ^= 1
    session = restoring(client, sidecar, table)
    session.send(restore_chunk=chunk)
    error = refused(session, bridge)
    assert error.code == bridge.ERROR_RESTORE and "damaged: its checksum is" in error.message

    chunk.entries[1].key_group = (chunk.entries[1].key_group + 1) % 128
    chunk.checksum = checksum_of(chunk)
    session = restoring(client, sidecar, table)
    session.send(restore_chunk=chunk)
    error = refused(session, bridge)
    assert (error.code, error.record) == (bridge.ERROR_RESTORE, 1)
    assert "max_parallelism must be that of the checkpoint" in error.message

    session = restoring(client, sidecar, table)
    session.send_chunks(table.entries.values())
    session.send(restore_end=bridge.RestoreEnd(entries=77))
    error = refused(session, bridge)
    assert error.code == bridge.ERROR_RESTORE and "says that 77 entries were sent" in error.message


def test_manifests_that_do_not_fit(sample, bridged, client, bridge):
    sidecar, table = sample
    gone = bridge.StateDeclaration(step="gone", name="state", format_version=1)
    error = refused(restoring(client, sidecar, table, state_manifest=[*table.manifest, gone]), bridge)
    assert error.code == bridge.ERROR_RESTORE and 'has state "state" of step "gone"' in error.message
    other = [type(one).FromString(one.SerializeToString()) for one in table.manifest]
    other[0].format_version += 1
    error = refused(restoring(client, sidecar, table, state_manifest=other), bridge)
    assert error.code == bridge.ERROR_RESTORE and "drop_state" in error.message
    error = refused(restoring(client, sidecar, table, restored_checkpoint=0), bridge, INVALID)
    assert error.code == bridge.ERROR_STATE and "restored_checkpoint" in error.message
    lenient = bridged(PIPELINE + "drop_state: [gone.state]\n")
    session = restoring(client, lenient, table, state_manifest=[*table.manifest, gone])
    entries = [*table.entries.values(), bridge.StateEntry(state=len(table.manifest), key=b"any")]
    session.send_chunks(entries)
    session.send(restore_end=bridge.RestoreEnd(entries=len(entries)))
    session.receive("open_ack")
    ack = session.receive("restore_ack").restore_ack
    assert (ack.entries, ack.dropped) == (len(entries), 1)
    assert session.finish()[0] == OK


def test_what_may_come_before_the_end_of_a_restore(sample, client, bridge):
    sidecar, table = sample
    for message in (dict(barrier=bridge.Barrier(checkpoint_id=1)), dict(batch=bridge.Batch()), dict(end_input=bridge.EndInput())):
        session = restoring(client, sidecar, table)
        session.send(**message)
        error = refused(session, bridge, INVALID)
        assert error.code == bridge.ERROR_STATE and "before RestoreEnd" in error.message
    session = restoring(client, sidecar, table)
    session.send_chunks(table.entries.values())
    assert session.finish()[0] == OK  # Close may
    session = client(sidecar.unix).session(sidecar, SUMS)
    [chunk] = chunks(bridge, table.entries.values())
    session.send(restore_chunk=chunk)
    assert refused(session, bridge, INVALID).code == bridge.ERROR_STATE
    session = restoring(client, sidecar, table)
    session.send(restore_end=bridge.RestoreEnd())
    session.half_close()  # all is answered by the RestoreAck
    assert session.receive("open_ack") and session.receive("restore_ack")
    assert session.end()[0] == OK


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_that_ends_before_the_end_of_a_restore(sample, client, bridge, chunked):
    sidecar, table = sample
    session = restoring(client, sidecar, table)
    if chunked:
        session.send_chunks(table.entries.values())
    session.half_close()
    error = refused(session, bridge, INVALID)
    assert error.code == bridge.ERROR_STATE and "before RestoreEnd" in error.message


def test_what_a_slot_remembers_is_told(bridged, client, bridge):
    """The figures of `state SLOT` are those of what was sent, whoever owns the slot."""
    sidecar = bridged(PIPELINE)
    subtasks = Subtasks(client(sidecar.unix), sidecar, SUMS, 1)
    records = phase_records(0)
    subtasks.feed(records)
    users = {key for key, _, _ in records}

    def told(dirty):
        def look():
            told = sidecar.stats_json("state 0")
            mine = [session for session in told.get("sessions", []) if session["channel"] != 0]
            sums = [row for row in told.get("states", []) if row["step"] == "sums" and row["channel"] != 0]
            entries = sum(row["entries"] for row in sums)
            fits = len(mine) == 1 and entries == len(users) and (mine[0]["dirty_entries"] > 0) == dirty
            return fits and (told, mine[0], sums)

        return wait_until(look, lambda: sidecar.stats("state 0"))

    told_all, session, sums = told(dirty=True)
    assert session["subtask"] == 0 and session["state_bytes"] > 0 and session["dirty_entries"] >= len(users)
    assert sum(row["key_bytes"] for row in sums) == sum(len(user) for user in users)
    assert max(row["largest_key_bytes"] for row in sums) == max(len(user) for user in users)
    assert 0 < told_all["blocks_bytes"] <= told_all["used_bytes"] < told_all["limit_bytes"]
    assert 0 < told_all["log_most_bytes"] < told_all["log_bytes"]
    assert sidecar.stats_json("stats")["slots"][0]["worker"]["arena_used"] == told_all["used_bytes"]
    subtasks.checkpoint(1)
    told(dirty=False)
    os.kill(sidecar.stats_json("slots")["slots"][0]["pid"], signal.SIGKILL)
    told(dirty=False)
    subtasks.finish()
    shown = subprocess.run([BRIDGECTL, "state", "0", "--stats", sidecar.stats_path], capture_output=True, text=True)
    assert shown.returncode == 0 and "limit" in shown.stdout and "(unary calls)" in shown.stdout, shown
    refused = subprocess.run([BRIDGECTL, "state", "7", "--stats", sidecar.stats_path], capture_output=True, text=True)
    assert refused.returncode == 1 and '"7" is no slot' in refused.stderr
