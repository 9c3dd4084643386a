"""Steps in Python, in a whole sidecar: what they can do, how they fail, and what becomes of a worker that they break."""

import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest

from conftest import BRIDGED, BUILD, PATIENCE, SANITIZED, wait_until
from state_table import share

PATIENT = ["--unit-cpu-limit", "60s", "--unit-wall-limit", "120s"] if SANITIZED else []
PYTHON = (BUILD / "python.flags").read_text().split()[0]  # the one that the host was built for


def pipeline(*steps, keyed=False, policy="fail", extra=""):
    """A pipeline of Python steps in module `app`, all in one segment; behind a key_by of the field `k`, if keyed."""
    lines = ["name: app", f"on_error: {policy}", "sources: { in: { kind: generator, count: 1 } }", "steps:"]
    lines += ["  - { name: by, kind: key_by, key: .k }"] * keyed
    lines += ["  - { kind: python, module: app, " + step + " }" for step in steps]
    last = re.search(r"name: (\w+)", steps[-1])[1]
    routes = re.search(r"routes: \[(.*?)\]", steps[-1])
    outs = [f"{last}.{route.strip()}" for route in routes[1].split(",")] if routes else [last]
    outs += ["dead_letter"] * (policy == "dead_letter")
    return "\n".join([*lines, extra, f"sinks: {{ out: {{ kind: discard, from: [{', '.join(outs)}] }} }}"])


@pytest.fixture
def python(bridged, workdir):
    """Starts a sidecar whose steps are in a module of this text: python(code, pipeline(...), ...)."""

    def start(code, text, **options):
        (workdir / "app.py").write_text("import flink_bridge as fb\n" + code)
        flags = ["--python-path", workdir, *PATIENT, *options.pop("flags", ())]
        return bridged(text, flags=flags, **options)

    return start


def payloads(records):
    return [record.payload for record in records]


# ---- What steps can do -------------------------------------------------------------------------------------------------

FORMS = """
def plain(message):
    text = message.text()
    if text == "none": return None
    if text == "same": return message
    if text == "list": return ["a", b"b", {"c": "ü"}, fb.Json([1]), bytearray(b"d"), message.view()[:2]]
    if text == "new": return fb.Message("n", headers={"x": "y"}, timestamp=5)
    if text == "replace": return message.replace(json={"r": 1}, timestamp=6)
    return (part for part in text.split())
@fb.flat_map
def words(message):
    yield from message.text().split()
def even(message):
    return len(message.payload) % 2 == 0
@fb.map
def shout(message):
    return message.text().upper()
@fb.route
def by_length(message):
    return {1: "one", 2: ["one", "two"]}.get(len(message.payload))
@fb.batch
def joined(messages):
    return [b"+".join(message.payload for message in messages), messages[0]]
"""


def test_a_result_is_nothing_one_output_or_several(python, client):
    session = client((sidecar := python(FORMS, pipeline("name: plain, function: plain"))).unix).session(sidecar)
    sent = session.send_records(*map(str.encode, ["none", "same", "list", "new", "replace", "x y", "same"]), timestamp=9, headers={"h": "v"})
    results = session.results(sent)
    assert payloads(results) == [b"same", b"a", b"b", '{"c":"ü"}'.encode(), b"[1]", b"d", b"li", b"n", b'{"r":1}', b"x", b"y", b"same"]
    assert [(record.timestamp, dict(record.headers)) for record in results] == [
        (5, {"x": "y"}) if i == 7 else (6 if i == 8 else 9, {"h": "v"}) for i in range(12)
    ]
    assert session.finish()[0] == grpc.StatusCode.OK


def test_forms_of_functions(python, client):
    steps = ["name: words, function: words", "name: even, function: even, form: filter", "name: shout, function: shout"]
    steps += ["name: split, function: by_length, routes: [one, two]"]
    sidecar = python(FORMS, pipeline(*steps))
    session = client(sidecar.unix).session(sidecar)
    records = session.results(session.send_records(b"aa b", b"", b"cccc dd"))
    assert [(record.payload, record.route) for record in records] == [(b"AA", 0), (b"AA", 1), (b"DD", 0), (b"DD", 1)]


KEYS = """
def key_of(message):
    text = message.text()
    return {"bytes": b"\\xff\\x00", "empty": "", "none": None, "number": 5, "half": "\\ud800"}.get(text, "ü" + text)
def twice(message):
    return [message, message.text() + "!"]
"""


@pytest.mark.parametrize("before", [[], ["name: twice, function: twice"]], ids=["alone", "behind another"])
def test_a_function_makes_the_key(python, client, before):
    """Of records as they came in, and of those that a step before it has made; the payload stays as it is."""
    text = pipeline(*before, "name: by, function: key_of").replace("kind: python, module: app, name: by", "kind: key_by, module: app, name: by")
    session = client((sidecar := python(KEYS, text)).unix).session(sidecar)
    keys = {b"a": "üa".encode(), b"a!": "üa!".encode(), b"bytes": b"\xff\x00", b"bytes!": "übytes!".encode(), b"empty": b"", b"empty!": "üempty!".encode()}
    expected = [each for name in (b"a", b"bytes", b"empty") for each in (name, name + b"!") if before or not each.endswith(b"!")]
    records = session.results(session.send_records(b"a", b"bytes", b"empty"))
    assert [(record.payload, record.key) for record in records] == [(each, keys[each]) for each in expected]
    assert all(record.HasField("key") for record in records) and len({record.key_hash for record in records}) == len(records)


def test_what_is_no_key_is_the_error_policys_business(python, client):
    text = pipeline("name: by, function: key_of", policy="dead_letter").replace("kind: python, module: app, name: by", "kind: key_by, module: app, name: by")
    session = client((sidecar := python(KEYS, text)).unix).session(sidecar)
    records = session.results(session.send_records(b"a", b"none", b"number", b"half", b"b"))
    assert [(record.payload, record.key) for record in records if record.route == 0] == [(b"a", "üa".encode()), (b"b", "üb".encode())]
    dead = {record.payload: record for record in records if record.route == 1}
    assert not any(record.HasField("key") for record in dead.values())
    assert {name: record.headers["bridge-error"] for name, record in dead.items() if name != b"half"} == {
        b"none": "a key_by function returns the key, bytes or str; this is None",
        b"number": "a key_by function returns the key, bytes or str; this is an int",
    }
    assert dead[b"half"].headers["bridge-error-kind"] == "UnicodeEncodeError"


def test_a_batch_function_gets_what_comes_together(python, client):
    sidecar = python(FORMS, pipeline("name: joined, function: joined"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"a", b"b", b"c") == [b"a+b+c", b"a"]


MESSAGES = """
import pytest_free
kept, views = [], []
def keep(message):
    pytest_free.check(message)
    kept.append(message)
    views.append(message.view()[1:])
    views.append(message.view())
    return "kept"
def look(message):
    for view in views:
        try: bytes(view)
        except ValueError: continue
        return "a view is still there"
    assert [each.payload for each in kept] == [b'{"a":1}', b'{"a":2}'], kept
    assert all(each.headers == {"h": "v"} and each.key is None and each.timestamp == 7 for each in kept)
    assert bytes(kept[0].view()) == b'{"a":1}'
    return kept[1]
def step(message):
    return keep(message) if message.payload.startswith(b"{") else look(message)
"""

CHECKS = """
import json
def raises(kind, function, *args, **kwargs):
    try: function(*args, **kwargs)
    except kind: return
    raise AssertionError(f"{function} does not raise {kind}")
def check(message):
    assert message.json() is message.json() and message.json()["a"] in (1, 2)
    assert message.view().readonly and bytes(message.view()) == message.payload
    assert message.text() == message.payload.decode()
    for name in ("payload", "key", "timestamp", "headers", "other"):
        raises(AttributeError, setattr, message, name, None)
    raises(TypeError, message.headers.__class__.__setitem__ if hasattr(message.headers, "__setitem__") else message.headers.__getitem__, [])
    raises(TypeError, message.replace, b"x", json=1)
    raises(TypeError, message.replace, 5)
    raises(TypeError, message.replace, headers={"a": 1})
    raises(TypeError, hash, message)
    for text in ("", "{", "1 2", "nul", "[1,]"):
        raises(json.JSONDecodeError, message.replace(text).json)
    raises(UnicodeDecodeError, message.replace(b"\\xff").text)
    assert message.replace(" [1, 2.5, null] ").json() == [1, 2.5, None]
    assert message.replace() == message and message.replace("x") != message
    assert repr(message).startswith("<Message b'")
    with message.view() as view:
        assert len(view) == 7
"""


def test_messages_and_views(python, client, workdir):
    """What was kept of a message stays good, and what was kept of its memory says that it is gone."""
    (workdir / "pytest_free.py").write_text(CHECKS)
    sidecar = python(MESSAGES, pipeline("name: step, function: step"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b'{"a":1}', b'{"a":2}', timestamp=7, headers={"h": "v"}) == [b"kept", b"kept"]
    assert session.exchange(b"look") == [b'{"a":2}']


STATEFUL = """
class Rule(fb.Step):
    def open(self, context):
        self.context = context
        self.total = context.state.value("total", fb.INT)
        self.pages = context.state.map("pages")
        self.held = context.state.list("held", fb.TEXT)
        self.due = context.state.timers("due")
        self.seen = context.metrics.counter("seen")
        context.metrics.gauge("opened").set(1)
        context.log.info("opened with %s", context.options["limit"])
        print("printed")
    def process(self, message):
        event = message.json()
        if event.get("fail"):
            self.total.set(-1)
            raise ValueError("as asked for")
        self.seen.add()
        self.total.set(self.total.get(0) + event["n"])
        self.pages[str(event["n"])] = self.pages.get(str(event["n"]), 0) + 1
        self.held.append(str(event["n"]))
        self.due.at_event_time(message.timestamp + 10, "late")
        if event["n"] == 9:
            del self.pages["9"]
            self.due.delete_event_time(message.timestamp + 10, "late")
            self.due.at_processing_time(50)
        return {"total": self.total.get(), "pages": dict(self.pages.items()), "held": list(self.held), "key": self.context.key.decode()}
    def on_timer(self, timer):
        yield {"timer": timer.time, "tag": timer.tag, "event": timer.event_time, "key": timer.key.decode(), "total": self.total.get()}
        self.total.clear()
class Moments(fb.Step):
    def open(self, context):
        self.context = context
        self.held = context.state.list("held")
    def process(self, message):
        self.held.append(message.text())
    def on_watermark(self, watermark):
        return {"watermark": watermark, "context": self.context.watermark, "held": list(self.held)}
    def on_end(self):
        yield from self.held
        yield fb.Message("end", timestamp=3)
class Keyless(fb.Step):
    def process(self, message): return message
    def on_watermark(self, watermark): return "x"
class Sum(fb.Aggregate):
    def create(self): return 0
    def add(self, accumulator, message): return accumulator + message.json()["n"]
    def result(self, accumulator): return {"sum": accumulator}
@fb.reduce
def larger(a, b):
    return a if a["n"] > b["n"] else b
"""

RULE = "name: rule, function: Rule, state: { total: value, pages: map, held: list, due: timers }, options: { limit: 5 }"


def open_keyed(sidecar, client, **fields):
    names = [step["step_name"] for step in sidecar.descriptor["steps"]]
    return client(sidecar.unix).session(sidecar, segment=len(names) - 1, **fields)


def send_keyed(session, key, timestamp=0, **event):
    """Sends a record and returns the results, parsed."""
    record = session.keyed(key, json.dumps(event).encode(), timestamp)
    return [json.loads(result.payload) for result in session.results(session.send_records(record))]


def kill_owner(sidecar):
    """Once it has an heir; until its end is noted, so that the next call means another one."""

    def slot():
        return sidecar.stats_json("slots")["slots"][0]

    def look():
        now = slot()
        return now["pid"] if now["heirs"] == 1 else 0  # between two owners that is 0, too

    killed = wait_until(look, "an owner and an heir")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: slot()["pid"] != killed, "its end to be noted")


def test_a_class_remembers_by_key_and_outlives_its_worker(python, client):
    sidecar = python(STATEFUL, pipeline(RULE, keyed=True))
    session = open_keyed(sidecar, client)
    assert send_keyed(session, b"a", n=1) == [{"total": 1, "pages": {"1": 1}, "held": ["1"], "key": "a"}]
    assert send_keyed(session, b"b", n=5) == [{"total": 5, "pages": {"5": 1}, "held": ["5"], "key": "b"}]
    kill_owner(sidecar)
    assert send_keyed(session, b"a", n=2) == [{"total": 3, "pages": {"1": 1, "2": 1}, "held": ["1", "2"], "key": "a"}]
    assert send_keyed(session, b"c", 90, n=9) == [{"total": 9, "pages": {}, "held": ["9"], "key": "c"}]
    records = session.results(session.send(watermark=session.proto.Watermark(timestamp=20)))
    assert [json.loads(record.payload) for record in records] == [
        {"timer": 10, "tag": "late", "event": True, "key": "a", "total": 3},
        {"timer": 10, "tag": "late", "event": True, "key": "b", "total": 5},
    ]
    assert [(record.key, record.timestamp) for record in records] == [(b"a", 10), (b"b", 10)]
    (record,) = session.results(session.send(clock=60, timer_tick=session.proto.TimerTick()))
    assert json.loads(record.payload) == {"timer": 50, "tag": "", "event": False, "key": "c", "total": 9}
    assert send_keyed(session, b"a", n=1)[0]["total"] == 1, "the timer has cleared it"
    log = sidecar.log()
    assert len(re.findall(r"step .?rule.?.*opened with 5", log)) >= 2 and "printed" in log, log


COUNTING = """
class Count(fb.Step):
    def open(self, context):
        self.seen = context.state.value("seen", fb.INT)
        self.last = context.state.list("last", fb.TEXT)
    def process(self, message):
        self.seen.set(self.seen.get(0) + 1)
        self.last.append(message.text())
        if len(self.last) == 5:
            self.last.clear()
        return f"{message.key.decode()} {self.seen.get()} {' '.join(self.last)}"
"""


class Counts:
    """What COUNTING makes of messages, computed by itself."""

    def __init__(self):
        self.seen, self.last = collections.Counter(), collections.defaultdict(list)

    def of(self, keys, text):
        """The payloads for messages of one text, one of each key."""
        out = []
        for key in keys:
            self.seen[key] += 1
            self.last[key].append(text)
            if len(self.last[key]) == 5:
                self.last[key].clear()
            out.append(f"{key} {self.seen[key]} {' '.join(self.last[key])}".encode())
        return out


def test_workers_that_are_killed_at_any_time_count_everything_once(python, client):
    sidecar = python(COUNTING, pipeline("name: count, function: Count, state: { seen: value, last: list }", keyed=True))
    session, roll, counts = open_keyed(sidecar, client), random.Random(7), Counts()
    sent = []
    for number in range(60):
        keys = [f"k{roll.randrange(9)}" for _ in range(roll.randrange(1, 400))]
        seq = session.send_records(*[session.keyed(key.encode(), str(number).encode()) for key in keys])
        sent.append((seq, number, keys))
        if number % 10 == 5:  # whatever it is at
            kill_owner(sidecar)
    for seq, number, keys in sent:
        assert payloads(session.results(seq)) == counts.of(keys, str(number))
    wait_until(lambda: sidecar.stats_json("slots")["slots"][0]["restarts"] >= 6, "another process for each that was killed")


def test_state_of_python_steps_goes_with_a_checkpoint(python, client):
    sidecar = python(STATEFUL, pipeline(RULE, keyed=True), slots=2)
    session = open_keyed(sidecar, client)
    for n in range(1, 5):
        send_keyed(session, b"a", n=n)
    _, table = session.barrier()
    session.finish()
    other = open_keyed(sidecar, client, restore=share([table], 0, 1), allocation_id="another")
    assert send_keyed(other, b"a", n=1) == [
        {"total": 11, "pages": {"1": 2, "2": 1, "3": 1, "4": 1}, "held": ["1", "2", "3", "4", "1"], "key": "a"}
    ]


def test_watermarks_and_the_end_of_input(python, client):
    sidecar = python(STATEFUL, pipeline("name: moments, function: Moments, state: { held: split }"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"a", b"b") == []
    (record,) = session.results(session.send(watermark=session.proto.Watermark(timestamp=20)))
    assert json.loads(record.payload) == {"watermark": 20, "context": 20, "held": ["a", "b"]} and record.timestamp == 20
    ended = session.results(session.send(end_input=session.proto.EndInput()))
    assert [(record.payload, record.timestamp) for record in ended] == [(b"a", 20), (b"b", 20), (b"end", 3)]


def test_an_output_without_a_key_cannot_leave_a_keyed_segment(python, client):
    sidecar = python(STATEFUL, pipeline("name: step, function: Keyless", keyed=True))
    session = open_keyed(sidecar, client)
    session.send(watermark=session.proto.Watermark(timestamp=20))
    assert "behind a key_by emit in process or on_timer" in session.end()[1] + sidecar.log()


def test_reduce_and_aggregate(python, client):
    steps = ["name: best, function: larger, state: { reduced: value }", "name: sum, function: Sum, state: { aggregated: value }"]
    sidecar = python(STATEFUL, pipeline(*steps, keyed=True))
    session = open_keyed(sidecar, client)
    assert [send_keyed(session, key, n=n)[0]["sum"] for key, n in ((b"a", 3), (b"a", 1), (b"b", 1), (b"a", 5))] == [3, 6, 1, 11]


# ---- How they fail -----------------------------------------------------------------------------------------------------

FAILING = """
import os, sys, time
def step(message):
    text = message.text()
    if text == "exit": sys.exit("enough")
    if text == "raise": helper(text)
    if text == "transient": raise fb.Transient("later")
    if text == "five": return 5
    if text == "route": return fb.To("nowhere", "x")
    if text == "late": return late()
    if text == "eat": return eat()
    if text == "interrupt": raise KeyboardInterrupt
    if text == "recursion": return step(message)
    return message
def helper(text):
    raise ValueError("no " + text)
def late():
    yield "first"
    raise KeyError("late")
def eat():
    held = []
    while True: held.append(bytearray(16 << 20))
"""
FAILURES = {
    "exit": "SystemExit: enough (a step must not end its worker)",
    "raise": "ValueError: no raise (app.py:17 in helper)",
    "transient": "Transient: later",
    "five": "a step returned a int",
    "route": "no route `nowhere`",
    "late": "KeyError: 'late'",
    "interrupt": "KeyboardInterrupt",
    "recursion": "RecursionError",
    "eat": "MemoryError",
}


def test_an_exception_is_the_error_policys_business(python, client):
    """Whatever it is: also an exit, an interrupt, no memory. Its neighbours come out as ever."""
    sidecar = python(FAILING, pipeline("name: step, function: step", policy="dead_letter"), flags=["--worker-memory", "192MiB"] * (not SANITIZED))
    session = client(sidecar.unix).session(sidecar)
    failures = FAILURES if not SANITIZED else {name: FAILURES[name] for name in FAILURES if name != "eat"}  # ASan ends the process
    records = session.results(session.send_records(b"a", *map(str.encode, failures), b"b"))
    assert payloads(record for record in records if record.route == 0) == [b"a", b"b"]
    dead = {record.payload.decode(): dict(record.headers) for record in records if record.route == 1}
    assert list(dead) == list(failures)
    for name, words in failures.items():
        told = " ".join(f"{key}={value}" for key, value in dead[name].items())
        assert words in told, told
    assert dead["raise"]["bridge-error-kind"] == "ValueError" and dead["five"]["bridge-error-kind"] == "StepError"
    trace = dead["raise"]["bridge-error-traceback"]
    assert re.search(r'app.py", line 7, in step\n.*\n.*app.py", line 17, in helper\n', re.sub(r"(?m)^ +[\^~]+ *\n", "", trace)), trace
    assert not sidecar.stats_json("slots")["slots"][0]["restarts"], "no worker has died"


def test_what_may_pass_is_tried_again_where_the_pipeline_says_so(python, client):
    code = """
tries = []
def step(message):
    tries.append(message.text())
    if message.payload == b"never" or tries.count("later") == 1:
        raise fb.Transient("not yet")
    return message.text() + str(tries.count(message.text()))
"""
    sidecar = python(code, pipeline("name: step, function: step, retries: 2, retry_backoff: 1ms", policy="dead_letter"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"later") == [b"later2"]
    (dead,) = session.results(session.send_records(b"never"))
    assert dead.route == 1 and dead.headers["bridge-error-attempt"] == "3" and "Transient: not yet" in dead.headers["bridge-error"]


def test_the_pipeline_says_what_may_pass(python, client):
    code = """
import sqlite3
tries = []
class Busy(sqlite3.OperationalError): pass
def step(message):
    tries.append(message.text())
    if tries.count(message.text()) == 1:
        raise {"busy": Busy, "transient": fb.Transient, "lookup": KeyError, "other": ValueError}[message.text()]("not yet")
    return message.text() + str(tries.count(message.text()))
"""
    rules = "retries: 2, retry_backoff: 1ms, retry_on: [sqlite3.OperationalError, LookupError]"
    session = client((sidecar := python(code, pipeline(f"name: step, function: step, {rules}", policy="dead_letter"))).unix).session(sidecar)
    out = {}
    for name in (b"busy", b"lookup", b"transient", b"other"):
        (out[name],) = session.results(session.send_records(name))
    assert [out[name].payload for name in (b"busy", b"lookup")] == [b"busy2", b"lookup2"]
    assert [out[name].headers["bridge-error-attempt"] for name in (b"transient", b"other")] == ["1", "1"]


def test_unary_calls_are_tried_again_by_who_makes_them(python, client):
    """What may pass is UNAVAILABLE, which gRPC's clients repeat by a policy; all else, or without `retries`, is INTERNAL."""
    code = """
tries = []
def step(message):
    tries.append(message.text())
    if message.text() == "broken" or tries.count(message.text()) == 1:
        raise (ValueError if message.text() == "broken" else fb.Transient)("not yet")
    return message.text() + str(tries.count(message.text()))
def plain(message):
    raise fb.Transient("never")
"""
    steps = ["name: step, function: step, retries: 2, parallelism: 1", "name: plain, function: plain, parallelism: 2"]
    sidecar = python(code, pipeline(*steps))
    policy = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
    config = {"methodConfig": [{"name": [{"service": "flink_worker.FlinkWorkerService"}], "retryPolicy": policy}]}
    unary = client(sidecar.unix, options=[("grpc.service_config", json.dumps(config))])
    assert payloads(unary.process(0, b"later")) == [b"later2"]
    for segment, payload, words in ((0, b"broken", "ValueError: not yet"), (1, b"any", "Transient: never")):
        with pytest.raises(grpc.RpcError) as raised:
            unary.process(segment, payload)
        assert raised.value.code() == grpc.StatusCode.INTERNAL and words in raised.value.details()


def test_a_failure_fails_the_session_in_words(python, client):
    sidecar = python(FAILING, pipeline("name: step, function: step"))
    session = client(sidecar.unix).session(sidecar)
    session.send_records(b"a", b"raise")
    code, words = session.end()
    assert code != grpc.StatusCode.OK
    assert 'step "step" record 1: ValueError: no raise (app.py:17 in helper)' in words


def test_what_a_failed_record_changed_is_undone(python, client):
    sidecar = python(STATEFUL, pipeline(RULE, keyed=True, policy="skip"))
    session = open_keyed(sidecar, client)
    assert send_keyed(session, b"a", n=1)[0]["total"] == 1
    records = [session.keyed(b"a", json.dumps(event).encode()) for event in ({"n": 1}, {"fail": True}, {"n": 1})]
    totals = [json.loads(payload)["total"] for payload in payloads(session.results(session.send_records(*records)))]
    assert totals == [2, 3]


BREAKING = """
import ctypes, os, signal, subprocess, threading, time
import faulthandler
kept = []
def step(message):
    text = message.text()
    if text == "exit": os._exit(3)
    if text == "crash": ctypes.string_at(0)
    if text == "abort": os.abort()
    if text == "endless":
        while True: pass
    if text == "buffer": kept.append(ctypes.c_char.from_buffer_copy(message.view())); kept.append((ctypes.c_char * 1))
    if text == "array":
        import array
        kept.append(memoryview(message.view()).cast("b"))
        kept.append(pickle_free(message.view()))
    return message
def pickle_free(view):
    return zip_free(view)
class Holder:
    pass
def zip_free(view):
    import io
    holder = io.BufferedReader(io.BytesIO(b""))
    return Lent(view)
class Lent:
    def __init__(self, view):
        self.buffer = ctypes.py_object(view)
        self.view = Py_buffer()
        ctypes.pythonapi.PyObject_GetBuffer(self.buffer, ctypes.byref(self.view), 0)
class Py_buffer(ctypes.Structure):
    _fields_ = [("raw", ctypes.c_char * 256)]
"""
DEADLY = ["exit", "crash", "abort", "endless", "array"]


@pytest.mark.parametrize("what", DEADLY)
def test_a_record_that_its_worker_dies_of_is_put_aside(python, client, what):
    """An exit, a signal of the code's own, no end, a buffer that is kept beyond its unit: two workers, and the others go on."""
    flags = ["--unit-cpu-limit", "3s" if SANITIZED else "500ms"]
    sidecar = python(BREAKING, pipeline("name: step, function: step", policy="dead_letter"), flags=flags)
    session = client(sidecar.unix).session(sidecar)
    records = session.results(session.send_records(b"a", what.encode(), b"b"))
    assert [(record.payload, record.route) for record in records if record.route == 0] == [(b"a", 0), (b"b", 0)]
    (dead,) = [record for record in records if record.route == 1]
    assert dead.payload == what.encode()
    assert dead.headers["bridge-error-cause"] == ("watchdog" if what == "endless" else "code"), dead
    assert session.exchange(b"c") == [b"c"]
    if what == "array":
        assert "a buffer of message.view() is in use beyond the call" in sidecar.log()


ENVIRONMENT = """
import os, signal, subprocess, threading, time
caught, ticks, found = [], [], []
signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
class Step(fb.Step):
    def open(self, context):
        self.state = context.state.list("held")
        self.ready = threading.Event()
        def tick():
            while True:
                ticks.append(1)
                self.ready.set()
                time.sleep(0.001)
        threading.Thread(target=tick, daemon=True).start()
    def process(self, message):
        what = message.text()
        if what == "signal":
            os.kill(os.getpid(), signal.SIGUSR1)
            for _ in range(10): pass
            return str(len(caught))
        if what == "ticks":
            return str(len(ticks))
        if what == "subprocess":
            return subprocess.run(["echo", "hello"], capture_output=True).stdout
        if what == "fork":
            child = os.fork()
            if child == 0: return "the child comes back"
            return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if what == "thread":
            def other():
                try: self.state.append("x")
                except Exception as error: found.append(str(error))
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return found[-1]
"""


def test_signals_threads_and_children(python, client):
    sidecar = python(ENVIRONMENT, pipeline("name: step, function: Step, state: { held: split }"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"signal") == [b"1"]
    assert session.exchange(b"subprocess") == [b"hello\n"]
    assert session.exchange(b"thread") == [b"state, timers, metrics and time are for the step's own thread; this is another"]
    assert session.exchange(b"fork") == [b"86"]
    assert "came back from the step, and ends" in sidecar.log()
    first = int(session.exchange(b"ticks")[0])
    wait_until(lambda: int(session.exchange(b"ticks")[0]) > first, "a thread to run while the worker waits")
    assert not sidecar.stats_json("slots")["slots"][0]["restarts"]


# ---- Calls to services outside -------------------------------------------------------------------------------------------

ASYNC = """
import asyncio
class Lookup(fb.Step):
    async def open(self, context):
        self.path = context.options["path"]
    @fb.asynchronous(capacity=50, timeout=30, retries=1, backoff=0)
    async def process(self, message):
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(message.payload + b"\\n")
        answer = (await reader.readline()).strip()
        writer.close()
        if answer == b"refused": raise ValueError("the service refuses " + message.text())
        if answer == b"": raise ConnectionError("gone")
        return message.replace(answer)
"""


class Service:
    """A service outside: it answers nobody before so many ask at once."""

    def __init__(self, path, together):
        self.asked, self.waiting, self.together, self.lock = [], [], together, threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(200)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        with contextlib.suppress(BrokenPipeError), connection, connection.makefile("rwb") as stream:
            question = stream.readline().strip()
            with self.lock:
                self.asked.append(question)
                self.lock.notify_all()
                self.lock.wait_for(lambda: len(self.asked) >= self.together)
            if question == b"bad":
                stream.write(b"refused\n")
            elif question != b"flaky" or self.asked.count(b"flaky") > 1:
                stream.write(question.upper() + b"\n")


@pytest.fixture
def service(workdir):
    made = []

    def start(together):
        made.append(Service(workdir / "service", together))
        return made[-1]

    yield start
    for each in made:
        each.socket.close()


def lookup(python, workdir, policy="fail", **options):
    step = f"name: lookup, function: Lookup, options: {{ path: {workdir}/service }}"
    return python(ASYNC, pipeline(step, policy=policy), **options)


def test_calls_outside_are_made_at_once_and_keep_their_order(python, client, workdir, service):
    outside = service(together=50)
    sidecar = lookup(python, workdir)
    session = client(sidecar.unix).session(sidecar)
    names = [f"m{n}".encode() for n in range(49)] + [b"flaky"]
    sent = session.send_records(*names)
    marked = session.send(watermark=session.proto.Watermark(timestamp=5))
    assert payloads(session.results(sent)) == [name.upper() for name in names]
    assert session.results(marked) == [] and sorted(outside.asked) == sorted([*names, b"flaky"])


def test_a_session_that_waits_holds_up_nobody_else(python, client, workdir, service):
    """Neither other sessions of its slot, nor the watchdog; what comes behind the calls comes behind them."""
    outside = service(together=4)
    sidecar = lookup(python, workdir, flags=["--unit-wall-limit", "1s"] * (not SANITIZED))
    one, other = (client(sidecar.unix).session(sidecar, subtask=n, parallelism=2, key_group_first=64 * n, key_group_last=64 * n + 63)
                  for n in range(2))  # fmt: skip
    sent = one.send_records(b"a", b"b")
    marked = one.send(watermark=one.proto.Watermark(timestamp=5))
    held = one.send(barrier=one.proto.Barrier(checkpoint_id=1))
    wait_until(lambda: len(outside.asked) == 2, "the calls of one session")
    for timestamp in range(1, 200):
        other.results(other.send(watermark=other.proto.Watermark(timestamp=timestamp)))
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 1.5, "longer than a unit may take")
    assert len(outside.asked) == 2, "and nothing was asked twice"
    assert other.exchange(b"c", b"d") == [b"C", b"D"]
    assert payloads(one.results(sent)) == [b"A", b"B"] and one.results(marked) == []
    acknowledged = one.receive("barrier_ack")
    assert acknowledged.seq == held and sorted(outside.asked) == [b"a", b"b", b"c", b"d"]
    assert not sidecar.stats_json("slots")["slots"][0]["restarts"]


def test_several_calls_one_behind_the_other(python, client, workdir, service):
    outside = service(together=3)
    steps = [f"name: {name}, function: Lookup, options: {{ path: {workdir}/service }}" for name in ("first", "second")]
    sidecar = python(ASYNC, pipeline(*steps))
    session = client(sidecar.unix).session(sidecar)
    seqs = [session.send_records(*batch) for batch in ((b"a", b"b", b"c"), (b"d",), (b"e", b"f"))]
    assert [payloads(session.results(seq)) for seq in seqs] == [[b"A", b"B", b"C"], [b"D"], [b"E", b"F"]]
    assert sorted(outside.asked) == sorted(b"a b c d e f A B C D E F".split())


def test_unary_calls_wait_for_their_own(python, client, workdir, service):
    service(together=1)
    one = client(lookup(python, workdir).unix)
    assert [one.process(0, name)[0].payload for name in (b"a", b"b")] == [b"A", b"B"]


def test_a_call_that_fails_for_good_is_the_policys_and_the_others_are_made_once(python, client, workdir, service):
    outside = service(together=3)
    sidecar = lookup(python, workdir, policy="dead_letter")
    session = client(sidecar.unix).session(sidecar)
    records = session.results(session.send_records(b"a", b"bad", b"b"))
    assert [record.payload for record in records if record.route == 0] == [b"A", b"B"]
    (dead,) = [record for record in records if record.route == 1]
    assert dead.payload == b"bad" and "ValueError: the service refuses bad" in dead.headers["bridge-error"]
    assert sorted(outside.asked) == [b"a", b"b", b"bad", b"bad"]


def test_calls_in_flight_are_made_again_after_a_takeover(python, client, workdir, service):
    outside = service(together=3)  # the heir is careful: one message at a time
    sidecar = lookup(python, workdir)
    session = client(sidecar.unix).session(sidecar)
    wait_until(lambda: sidecar.stats_json("slots")["slots"][0]["heirs"] == 1, "an heir")
    sent = session.send_records(b"a", b"b")
    wait_until(lambda: len(outside.asked) == 2, "both calls")
    kill_owner(sidecar)
    assert payloads(session.results(sent)) == [b"A", b"B"]
    assert sorted(outside.asked) == [b"a", b"a", b"b", b"b"]


# ---- Code: what does not load, what is new -------------------------------------------------------------------------------

WRONG = [
    ("", "module: nowhere, function: f", "no Python module `nowhere`"),
    ("", "module: app, function: f", "has no `f`"),
    ("def f(a, b): pass", "module: app, function: f", "takes a message"),
    ("def f(:", "module: app, function: f", "SyntaxError"),
    ("import nothing_like_it", "module: app, function: f", "No module named 'nothing_like_it'"),
    ("import sys; sys.exit(1)", "module: app, function: f", "SystemExit"),
]


@pytest.mark.parametrize(("code", "names", "words"), WRONG)
def test_code_that_does_not_load_is_told_before_anything_runs(compile, workdir, code, names, words):
    (workdir / "app.py").write_text(code)
    descriptor = compile(pipeline("name: step, function: f").replace("module: app, name: step, function: f", f"name: step, {names}"))
    flags = ["--descriptor", descriptor, "--listen", f"unix:{workdir}/s", "--python-path", workdir, "--check"]
    checked = subprocess.run([BRIDGED, *flags], capture_output=True, text=True, timeout=PATIENCE * 2, cwd=workdir)
    assert checked.returncode != 0 and words in checked.stdout + checked.stderr, checked.stdout + checked.stderr


def test_a_state_that_is_not_declared_is_told_with_what_to_write(python, client):
    sidecar = python(STATEFUL, pipeline(RULE.replace("pages: map, ", ""), keyed=True))
    session = open_keyed(sidecar, client, open=False)
    session.open(sidecar, len(sidecar.descriptor["steps"]) - 1)
    session.send_records(session.keyed(b"a", b'{"n":1}'))
    code, words = session.end()
    assert code != grpc.StatusCode.OK and "declares no state `pages` for the step: add `state: { pages: map }`" in words + sidecar.log()


def test_new_code_comes_with_a_reload(python, client, bridgectl, workdir):
    code = "VERSION = {}\ndef step(message): return str(VERSION)\n"
    sidecar = python(code.format(1), pipeline("name: step, function: step"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"x") == [b"1"]
    (workdir / "app.py").write_text("VERSION = 2\n" + "def step(message): return str(VERSION) + ' is new'\n")
    bridgectl("reload", "--stats", sidecar.stats_path)
    assert session.exchange(b"x") == [b"2 is new"]
    (workdir / "app.py").write_text("def stop(message): return 'broken'\n")
    broken = bridgectl("reload", "--stats", sidecar.stats_path, check=False)
    assert broken.returncode != 0 and session.exchange(b"x") == [b"2 is new"]
    assert "has no `step`; is `stop` meant" in sidecar.log()


# ---- Virtual environments ----------------------------------------------------------------------------------------------


def test_packages_of_a_virtual_environment(python, client, workdir):
    version = re.search(r"(\d+)\.(\d+)", subprocess.run([PYTHON, "--version"], capture_output=True, text=True).stdout)
    venv = workdir / "venv"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", venv], check=True)
    package = venv / "lib" / f"python{version[1]}.{version[2]}" / "site-packages" / "only_there.py"
    package.write_text("WORD = 'found'\n")
    sidecar = python("import only_there, sys\ndef step(message): return only_there.WORD + ' ' + sys.prefix\n",
                     pipeline("name: step, function: step"), flags=["--python-venv", venv])  # fmt: skip
    assert client(sidecar.unix).session(sidecar).exchange(b"x") == [f"found {venv}".encode()]


def test_a_virtual_environment_of_another_version_is_refused_in_words(compile, workdir):
    venv = workdir / "venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.7.1\n")
    (workdir / "app.py").write_text("def step(message): return message\n")
    flags = ["--descriptor", compile(pipeline("name: step, function: step")), "--listen", f"unix:{workdir}/s"]
    for folder, words in ((venv, "is of Python 3.7, and the host"), (workdir, "has no pyvenv.cfg")):
        checked = subprocess.run([BRIDGED, *flags, "--python-venv", folder, "--python-path", workdir, "--check"],
                                 capture_output=True, text=True, timeout=PATIENCE * 2)  # fmt: skip
        assert checked.returncode != 0 and words in checked.stdout + checked.stderr, checked.stdout + checked.stderr
