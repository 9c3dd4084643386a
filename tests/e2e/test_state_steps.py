"""Steps that remember, over checkpoints and deaths: restored, dealt out to more and to fewer subtasks, with what came after a checkpoint
lost, and with workers that are killed at work.

A client with a table of state runs jobs of random records; what comes out is compared with what a few lines of Python come to.
"""

import collections
import contextlib
import copy
import json
import os
import random
import signal

import pytest

from state_table import groups_of, key_group, key_hash, share, subtask_of

PIPELINE = """
name: remembering
sources:
  in: {kind: generator, count: 1}
steps:
  - {name: heap, kind: batch, from: in, size: 4, time: 10s}
  - {name: by_k, kind: key_by, from: in, key: .k}
  - {name: once, kind: dedup, from: by_k, key: .id, ttl: 60s}
  - {name: totals, kind: aggregate, fields: {n: count, v: sum(.v), least: min(.v)}}
  - {name: bunch, kind: batch, from: by_k, size: 5, time: 10s}
  - {name: hourly, kind: aggregate, from: by_k, fields: {n: count, most: max(.v)}, emit: event_time, every: 1s}
sinks:
  out: {kind: discard, from: [heap, totals, bunch, hourly]}
"""

HEAP, BY_K, ONCE, BUNCH, HOURLY = range(5)
SLOTS = 2
END = 2**63 - 1


class Model:
    """One segment as it should be, whatever its parallelism: what a record, a tick and a watermark bring out, by key."""

    def record(self, key, payload, now, time):
        raise NotImplementedError

    def tick(self, now):
        return []

    def watermark(self, time):
        return []

    def end(self):
        return []


class Once(Model):
    """dedup by identity for 60 s, then totals."""

    def __init__(self):
        self.seen, self.totals = {}, collections.defaultdict(list)

    def record(self, key, payload, now, time):
        name = key, payload["id"]
        if now - self.seen.get(name, -END) < 60_000:
            return []
        self.seen[name] = now
        values = self.totals[key]
        values.append(payload["v"])
        return [(key, {"key": key, "n": len(values), "v": sum(values), "least": min(values)})]


class Bunch(Model):
    """A batch for each key, of 5 or of 10 s."""

    def __init__(self):
        self.open = {}

    def close(self, wanted):
        keys = sorted(key for key, (due, _) in self.open.items() if wanted(due))
        return [(key, self.open.pop(key)[1]) for key in keys]

    def record(self, key, payload, now, time):
        out = []
        if key in self.open and self.open[key][0] <= now:
            out.append((key, self.open.pop(key)[1]))
        _, records = self.open.setdefault(key, (now + 10_000, []))
        records.append(payload)
        if len(records) == 5:
            out.append((key, self.open.pop(key)[1]))
        return out

    def tick(self, now):
        return self.close(lambda due: due <= now)

    def end(self):
        return self.close(lambda due: True)


class Hourly(Model):
    """Totals at the first second behind a key's first record."""

    def __init__(self):
        self.open, self.time = {}, -END

    def record(self, key, payload, now, time):
        due = (max(time, self.time) // 1000 + 1) * 1000
        self.open.setdefault(key, (due, []))[1].append(payload["v"])
        return []

    def watermark(self, time):
        self.time = time
        keys = sorted(key for key, (due, _) in self.open.items() if due <= time)
        values = {key: self.open.pop(key)[1] for key in keys}
        return [(key, {"key": key, "n": len(found), "most": max(found)}) for key, found in values.items()]


class Job:
    """The subtasks of one segment, and a clock."""

    def __init__(self, sidecar, one, segment, proto):
        self.sidecar, self.one, self.segment, self.bridge = sidecar, one, segment, proto.bridge
        self.sessions, self.clock, self.checkpoint, self.deaths = [], 1000, 0, 0

    def start(self, parallelism, tables=()):
        """Opens so many subtasks on the state of a checkpoint."""
        for subtask in range(parallelism):
            first, last = groups_of(subtask, parallelism)
            fields = dict(subtask=subtask, parallelism=parallelism, allocation_id=f"a{subtask % SLOTS}", key_group_first=first, key_group_last=last)
            if tables:
                fields["restore"] = share(tables, subtask, parallelism)
            self.sessions.append(self.one.session(self.sidecar, self.segment, **fields))
        self.set_clock(self.clock)

    def stop(self):
        for session in self.sessions:
            session.finish()
        self.sessions = []

    def set_clock(self, clock):
        self.clock = clock
        for session in self.sessions:
            session.clock = clock

    def to_all(self, **kind):
        """Sends something to all subtasks; their records."""
        return [record for session in self.sessions for record in session.results(session.send(**kind))]

    def record(self, key, payload, time, roll):
        hashed = key_hash(key.encode())
        group = key_group(hashed)
        session = self.sessions[subtask_of(group, len(self.sessions))]
        record = self.bridge.Record(payload=payload, key=key.encode(), key_hash=hashed, key_group=group, timestamp=time)
        seq = session.send_records(record)
        if roll.random() < self.deaths:
            self.kill(roll.randrange(SLOTS))
        return session.results(seq)

    def kill(self, slot):
        """Kills the worker of a slot, if it has one just now."""
        pid = self.sidecar.stats_json("slots")["slots"][slot]["pid"]
        if pid:
            with contextlib.suppress(ProcessLookupError):  # it was dead already
                os.kill(pid, signal.SIGKILL)

    def barrier(self):
        """A checkpoint over all subtasks: their tables."""
        self.checkpoint += 1
        found = [session.barrier(self.checkpoint) for session in self.sessions]
        assert [records for records, _ in found] == [[]] * len(found), "nothing leaves at a barrier"
        return [table for _, table in found]

    def end(self):
        records = []
        for session in self.sessions:
            session.send(end_input=self.bridge.EndInput())
            while (message := session.receive()).WhichOneof("kind") != "end_ack":
                records += message.results.records
        return records


def told(records):
    """Records as a model says them: by key, in their order for each."""
    found = collections.defaultdict(list)
    for record in records:
        found[record.key.decode()].append(json.loads(record.payload))
    return dict(found)


def grouped(pairs):
    found = collections.defaultdict(list)
    for key, payload in pairs:
        found[key].append(payload)
    return dict(found)


@pytest.fixture
def job(bridged, client, proto):
    """Makes a job of a segment: job(ONCE)."""
    sidecar = bridged(PIPELINE, slots=SLOTS, flags=["--restart-delay", "1ms"])
    one = client(sidecar.unix)
    return lambda segment: Job(sidecar, one, segment, proto)


def step(job, model, roll, time):
    """One random step of a job and of its model."""
    kind = roll.random()
    if kind < 0.85:
        key, payload = f"k{roll.randrange(25)}", {"id": roll.randrange(12), "v": roll.randrange(-50, 50)}
        at = time + roll.randrange(-2000, 2000)
        got, expected = job.record(key, json.dumps(payload).encode(), at, roll), model.record(key, payload, job.clock, at)
    elif kind < 0.95:
        job.set_clock(job.clock + roll.randrange(4000))
        got, expected = job.to_all(timer_tick=job.bridge.TimerTick()), model.tick(job.clock)
    else:
        got, expected = job.to_all(watermark=job.bridge.Watermark(timestamp=time)), model.watermark(time)
    assert told(got) == grouped(expected)


@pytest.mark.parametrize("deaths", [0, 0.05], ids=["quiet", "deaths"])
@pytest.mark.parametrize("segment, model", [(ONCE, Once()), (BUNCH, Bunch()), (HOURLY, Hourly())], ids=["once", "bunch", "hourly"])
def test_they_go_on_from_a_checkpoint(job, segment, model, deaths):
    roll = random.Random(segment)
    job, model, tables, time = job(segment), copy.deepcopy(model), (), 0
    job.deaths = deaths
    for parallelism in (1, 3, 2, 4, 1):
        job.start(parallelism, tables)
        for _ in range(roll.randrange(150, 250)):
            time += roll.randrange(60)
            step(job, model, roll, time)
            if roll.random() < 0.05:
                job.barrier()
        tables, kept, clock = job.barrier(), copy.deepcopy(model), job.clock
        for _ in range(roll.randrange(30)):  # lost with the subtasks
            step(job, model, roll, time)
        job.stop()
        model = kept
        job.clock = max(job.clock, clock)
        if isinstance(model, Hourly):
            model.time = -END  # a watermark is no part of a checkpoint
    job.start(2, tables)
    got = job.to_all(watermark=job.bridge.Watermark(timestamp=END))
    assert told(got) == grouped(model.watermark(END))
    assert told(job.end()) == grouped(model.end())
    job.stop()


def test_a_batch_without_keys_is_dealt_out(job):
    """Every record leaves in one batch, once, whatever the subtasks that hold it meanwhile; no batch is too large."""
    roll = random.Random(5)
    job, tables, given, kept = job(HEAP), (), 0, []
    for parallelism in (3, 1, 4, 2):
        job.start(parallelism, tables)
        for _ in range(50):
            session = roll.choice(job.sessions)
            kept += session.results(session.send_records(str(given).encode()))
            given += 1
            if roll.random() < 0.1:
                job.set_clock(job.clock + roll.randrange(9000))
                kept += job.to_all(timer_tick=job.bridge.TimerTick())
        tables = job.barrier()
        for session in job.sessions:  # lost
            session.results(session.send_records(b'"lost"'))
        job.stop()
    job.start(1, tables)
    kept += job.end()
    job.stop()
    batches = [json.loads(record.payload) for record in kept]
    assert all(1 <= len(batch) <= 4 for batch in batches)
    assert sorted(number for batch in batches for number in batch) == list(range(given))


@pytest.mark.parametrize("segment, size", [(HEAP, 4), (BUNCH, 5)])
def test_what_came_and_went_between_two_barriers_is_not_told(bridged, client, segment, size):
    """A batch is opened and closed: nothing is left to tell, and no StateDelta without entries is."""
    sidecar = bridged(PIPELINE)
    session = client(sidecar.unix).session(sidecar, segment)
    session.send_records(*(session.keyed(b"a" if segment == BUNCH else b"", b"%d" % n) for n in range(size)))
    assert [json.loads(record.payload) for record in session.results()] == [list(range(size))]
    assert session.barrier()[1].entries == {}
    assert session.deltas == 0
