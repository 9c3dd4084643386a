"""Lives of sessions that are all the same: one fixed input, and what must be answered to it and remembered at its barriers.

    lives = Lives(sidecar, client)
    lives.live()    # what is answered becomes the measure
    lives.live()    # must answer the same, whatever happens to the workers meanwhile
"""

import collections
import json
import random
import threading

import grpc
from conftest import PATIENCE
from state_table import key_group, key_hash

PIPELINE = """
name: lives
sources:
  in: {kind: generator, count: 1}
steps:
  - {name: call, kind: map, from: in, payload: text, program: ascii_upcase}
  - {name: by_user, kind: key_by, from: in, key: .user}
  - {name: once, kind: dedup, from: by_user, key: .id, ttl: 3s}
  - {name: fan, kind: flat_map, from: once, program: 'range(.fan) as $i | {v: (.v + $i)}'}
  - {name: totals, kind: aggregate, from: fan, fields: {n: count, total: sum(.v), most: max(.v)}}
  - {name: minutes, kind: aggregate, from: by_user, fields: {n: count, mean: avg(.v)}, emit: event_time, every: 10s}
  - {name: bundle, kind: batch, from: minutes, size: 3, time: 2s}
  - {name: clock, kind: aggregate, from: by_user, fields: {n: count, least: min(.v)}, emit: processing_time, every: 700ms, reset: false}
  - {name: plain, kind: batch, from: in, size: 5, time: 1s}
sinks:
  out: {kind: discard, from: [call, totals, bundle, clock, plain]}
"""
CALL, BY_USER, ONCE, MINUTES, CLOCK, PLAIN = range(6)
SESSIONS = {ONCE: "one", MINUTES: "one", PLAIN: "one", CLOCK: "two"}  # segment: allocation, which is a slot

MESSAGES = 120  # of one life
IN_FLIGHT = 24
USERS = 40
TTL = 3000  # ms, of `once`


def script(bridge, segment, messages=MESSAGES, barriers=3):
    """What a session is sent after Open, as ToWorker messages. The same each time it is asked for."""
    dice = random.Random(segment)
    clock, event, made, seq = 1_700_000_000_000, 1_700_000_000_000, 0, 1

    def record():
        nonlocal made
        made += 1
        fan = dice.choices([0, 1, 3, 40, 1000, 10_000], [30, 60, 20, 1, 0.03, 0.004])[0]
        again = max(made - dice.randrange(30), 1) if dice.random() < 0.2 else made  # an identity that has been
        payload = {"id": again, "v": dice.randrange(-1000, 1000) / 4, "fan": fan, "pad": "x" * dice.randrange(20)}
        one = bridge.Record(payload=json.dumps(payload).encode(), timestamp=event + dice.randrange(-3000, 3000))
        if segment != PLAIN:
            one.key = b"user-%d" % dice.randrange(USERS)
            one.key_hash = key_hash(one.key)
            one.key_group = key_group(one.key_hash)
        return one

    def message(**kind):
        nonlocal seq
        seq += 1
        return bridge.ToWorker(seq=seq, processing_time_ms=clock, **kind)

    for number in range(messages):
        clock += dice.choice([0, 1, 20, 150])
        kind = dice.choices(["batch", "watermark", "timer_tick", "watermark_status", "barrier"], [80, 12, 12, 2, barriers])[0]
        if kind == "batch":
            yield message(batch=bridge.Batch(records=[record() for _ in range(dice.choice([0, 1, 30, 300, 600]))]))
        elif kind == "watermark":
            event += dice.choice([500, 4000, 20_000])
            yield message(watermark=bridge.Watermark(timestamp=event - 3000))
        elif kind == "timer_tick":
            yield message(timer_tick=bridge.TimerTick())
        elif kind == "watermark_status":
            yield message(watermark_status=bridge.WatermarkStatus(idle=dice.random() < 0.5))
        else:
            yield message(barrier=bridge.Barrier(checkpoint_id=number + 1))
    yield message(end_input=bridge.EndInput())
    clock += 60_000
    yield message(timer_tick=bridge.TimerTick())
    yield message(barrier=bridge.Barrier(checkpoint_id=messages + 1))


def kept(table, now):
    """What a table of state holds that can still be seen. When what has expired is swept is up to the worker."""

    def lives(name, entry):
        one = table.manifest[name[0]]
        return (one.step, one.name) != ("once", "identities") or int.from_bytes(entry.value[:8], "little") + TTL > now

    return sorted((name, entry.value) for name, entry in table.entries.items() if lives(name, entry))


class Answer:
    """All that came for one message, however it was cut into Results."""

    def __init__(self):
        self.results = b""  # one Results with all records, serialised
        self.end = None  # kind of the last message, next wake-up, and for a barrier the state that goes with it

    def __eq__(self, other):
        return self.end == other.end and self.results == other.results


class Life:
    """One session from Open to Close, driven by a thread of its own."""

    def __init__(self, lives, segment, allocation):
        self.lives, self.segment, self.allocation = lives, segment, allocation
        self.answers = []
        self.failure = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            session = self.lives.client.session(self.lives.sidecar, self.segment, allocation_id=self.allocation, timeout=PATIENCE * 10)
            messages = self.lives.scripts[self.segment]
            for sent, message in enumerate(messages, 1):
                session.post(message)
                if sent - len(self.answers) >= IN_FLIGHT:
                    self.answers.append(self.read(session))
            while len(self.answers) < len(messages):
                self.answers.append(self.read(session))
            status, words = session.finish()
            assert status == grpc.StatusCode.OK, words
        except Exception as failure:
            self.failure = failure

    def read(self, session):
        """The whole answer to the message that is due."""
        answer, asked = Answer(), self.lives.scripts[self.segment][len(self.answers)]
        while True:
            message = session.receive()
            assert message.seq == asked.seq, f"an answer to {message.seq} where {asked.seq} is due"
            kind = message.WhichOneof("kind")
            if kind == "results":
                more = message.results.more or asked.WhichOneof("kind") == "end_input"
                message.results.more = False
                answer.results += message.results.SerializeToString(deterministic=True)
                if more:
                    continue
            state = kept(session.table.copy(), asked.processing_time_ms) if kind == "barrier_ack" else None
            answer.end = kind, message.next_wakeup_ms, state
            return answer


class Lives:
    """Sessions of all segments at once, over and over."""

    def __init__(self, sidecar, client, messages=MESSAGES):
        self.sidecar, self.client = sidecar, client
        self.scripts = {segment: list(script(client.proto.bridge, segment, messages)) for segment in SESSIONS}
        self.expected = {}
        self.count = 0

    def live(self):
        """One life of each; the answers must be those of the first ones."""
        lives = [Life(self, segment, allocation) for segment, allocation in SESSIONS.items()]
        for life in lives:
            life.thread.join()
        for life in lives:
            if life.failure is not None:
                words = f"segment {life.segment}, life {self.count}, after {len(life.answers)} answers:\n{self.sidecar.log()[-3000:]}"
                raise AssertionError(words) from life.failure
            self.judge(life)
        self.count += 1

    def judge(self, life):
        """Compares a life with the first one of its segment, seq by seq."""
        expected = self.expected.setdefault(life.segment, life.answers)
        for asked, wanted, got in zip(self.scripts[life.segment], expected, life.answers, strict=True):
            assert got == wanted, (
                f"segment {life.segment}, life {self.count}, seq {asked.seq}: {asked.WhichOneof('kind')} was answered otherwise\n"
                + self.difference(wanted, got)
            )

    def difference(self, wanted, got):
        """Where two answers differ."""
        bridge = self.client.proto.bridge
        wanted_records, got_records = (bridge.Results.FromString(answer.results).records for answer in (wanted, got))
        for index, (a, b) in enumerate(zip(wanted_records, got_records)):
            if a != b:
                return f"record {index} of {len(wanted_records)}, {len(got_records)} came:\nwanted {a}\ngot {b}"
        if wanted.end[2] is not None and got.end[2] is not None:
            missing, surplus = set(wanted.end[2]) - set(got.end[2]), set(got.end[2]) - set(wanted.end[2])
            return f"{len(wanted.end[2])} entries wanted, missing {sorted(missing)[:20]}, surplus {sorted(surplus)[:20]}"
        return f"{len(wanted_records)} records wanted, {len(got_records)} came; wanted {wanted.end[:2]}, got {got.end[:2]}"


class Job:
    """One session over and over, by a client that commits as a transactional sink does: what came since the last barrier is kept back until
    the next one is acknowledged, and is forgotten when the session or the client dies. Then it goes on from that checkpoint: its state
    is restored, and what had been sent after it is sent again.
    """

    def __init__(self, sidecar, connect, bridge, segment, allocation, seed):
        self.sidecar, self.connect, self.segment, self.allocation = sidecar, connect, segment, allocation
        self.messages = list(script(bridge, segment, barriers=12))
        self.dice = random.Random(seed)
        self.expected = None  # all that one life brings out
        self.ended = collections.Counter()  # how attempts ended before their time
        self.lives = 0

    def live(self, die=0.0):
        """One life, in as many attempts as it takes; `die`: the probability that the client dies before a message."""
        checkpoint, committed, table = 0, b"", None
        while checkpoint < len(self.messages):
            one = self.connect()
            try:
                for result, state in self.attempt(one, checkpoint, table, die):
                    committed, checkpoint, table = committed + result, state[0], state[1]
            except grpc.RpcError as error:
                self.ended[error.code()] += 1
                no_slot = error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "slot" in error.details()
                assert error.code() == grpc.StatusCode.UNAVAILABLE or no_slot, error
            except Died:
                self.ended["client"] += 1
            finally:
                one.close()
        if self.expected is None:
            self.expected = committed
        assert committed == self.expected, f"segment {self.segment}, life {self.lives}: {len(committed)} bytes for {len(self.expected)}"
        self.lives += 1

    def attempt(self, one, start, table, die):
        """Goes on from a checkpoint. Yields what each barrier commits: (results, (the message behind it, the state with it))."""
        restore = (table.manifest, list(table.entries.values())) if table is not None else ((), ())
        session = one.session(self.sidecar, self.segment, allocation_id=self.allocation, timeout=PATIENCE * 10, restore=restore)
        session.clock = self.messages[start - 1].processing_time_ms if start > 0 else 1
        sent, pending = start, b""
        marks = [m.watermark.timestamp for m in self.messages[:start] if m.WhichOneof("kind") == "watermark"]
        if marks:  # sources say theirs again
            assert session.results(session.send(watermark=session.proto.Watermark(timestamp=marks[-1]))) == []
        try:
            for due in range(start, len(self.messages)):
                while sent < min(due + IN_FLIGHT, len(self.messages)):
                    if self.dice.random() < die:
                        raise Died
                    again = type(self.messages[sent])()
                    again.CopyFrom(self.messages[sent])
                    again.seq = session.seq + 1
                    session.post(again)
                    sent += 1
                pending += self.read(session, self.messages[due])
                if self.messages[due].WhichOneof("kind") == "barrier":
                    yield pending, (due + 1, session.table.copy())
                    pending = b""
            assert session.finish()[0] in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        finally:
            session.cancel()

    def read(self, session, asked):
        """The records of one answer, as one serialised Results."""
        results = b""
        while True:
            message = session.receive()
            if message.WhichOneof("kind") != "results":
                return results
            more = message.results.more or asked.WhichOneof("kind") == "end_input"
            message.results.more = False
            results += message.results.SerializeToString(deterministic=True)
            if not more:
                return results


class Died(Exception):
    """A client came to its end."""
