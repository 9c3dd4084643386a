"""`flink_bridge.testing`: steps in pytest without a server; and pipelines through `bridgectl test`."""

import doctest
import pathlib
import sys

import pytest

from conftest import BRIDGECTL, TOP

PACKAGE = TOP / "worker" / "hosts" / "python" / "package"
sys.path.insert(0, str(PACKAGE))

import flink_bridge as fb  # noqa: E402
from flink_bridge import testing  # noqa: E402
from flink_bridge.testing import PipelineFailed, PipelineHarness, StepHarness, run_step  # noqa: E402


def test_the_examples_in_its_docs_hold():
    found = doctest.testmod(testing)
    assert found.failed == 0 and found.attempted > 0


class Sessions(fb.Step):
    """Counts the events of a key until none has come for a minute; what has begun too early goes to a route of its own."""

    def open(self, context):
        self.context = context
        self.count = context.state.value("count", fb.INT)
        self.last = context.state.value("last", fb.INT)
        self.due = context.state.timers("due")
        self.seen = context.metrics.counter("seen")

    def process(self, message):
        self.seen.add()
        if self.context.watermark is not None and message.timestamp <= self.context.watermark:
            return fb.To("late", message)
        self.count.set(self.count.get(0) + 1)
        if (last := self.last.get()) is not None:
            self.due.delete_event_time(last + 60_000)
        self.last.set(message.timestamp)
        self.due.at_event_time(message.timestamp + 60_000)
        if message.payload == b"bad":
            raise ValueError("a bad event")

    def on_timer(self, timer):
        count = self.count.get()
        self.count.clear()
        self.last.clear()
        return {"key": timer.key.decode(), "events": count}

    def on_end(self):
        return {"end": self.context.watermark}


STATE = {"count": "value", "last": "value", "due": "timers"}


def test_state_timers_routes_and_a_restart():
    harness = StepHarness(Sessions, state=STATE, routes=["sessions", "late"])
    assert harness.send("a", key="ada", timestamp=1000) == []
    assert harness.send("a", key="bob", timestamp=2000) == []
    harness.restart()
    assert harness.send("a", key="ada", timestamp=3000) == []
    assert harness.watermark(62_000).json() == [{"key": "bob", "events": 1}]
    late = harness.send("b", key="ada", timestamp=1)
    assert late == [] and late.routes["late"].texts() == ["b"] and late.routes["late"][0].key == b"ada"
    (session,) = harness.watermark(63_000)
    assert session.json() == {"key": "ada", "events": 2} and session.timestamp == 63_000 and session.key == b"ada"
    assert harness.watermark(63_000) == []
    assert harness.end().json() == [{"end": testing.MAX_TIME}]
    assert len(harness.outputs) == 3 and len(harness.outputs.routes["late"]) == 1 and harness.metrics == {"seen": 4}
    with pytest.raises(ValueError, match="has ended"):
        harness.send("c", key="ada")


def test_a_failure_leaves_nothing_behind():
    """What the step had changed before it failed is undone; the policy decides about the message."""
    harness = StepHarness(Sessions, state=STATE, on_error="dead_letter", name="sessions")
    harness.send("a", key="k", timestamp=1)
    letter = harness.send(fb.Message("bad", headers={"h": "1"}), key="k", timestamp=9000).routes["dead_letter"][0]
    assert letter.payload == b"bad" and letter.key == b"k" and letter.headers["h"] == "1" and letter.headers["bridge-error-step"] == "sessions"
    assert letter.headers["bridge-error-kind"] == "ValueError" and "a bad event" in letter.headers["bridge-error"]
    assert [str(failure.error) for failure in harness.failures] == ["a bad event"]
    assert harness.watermark(60_001).json() == [{"key": "k", "events": 1}]
    assert StepHarness(Sessions, state=STATE, on_error="skip").send("bad", "a", key="k") == []
    failing = StepHarness(Sessions, state=STATE)
    with pytest.raises(ValueError, match="a bad event"):
        failing.send("bad", key="k", timestamp=1)
    assert failing.watermark(100_000) == []


class Flaky(fb.Step):
    def open(self, context):
        self.tried = 0

    def process(self, message):
        self.tried += 1
        if self.tried < 3:
            raise fb.Transient("not yet")
        return message


def test_retries():
    """What may pass is tried again; what may not is the policy's business at once."""
    assert StepHarness(Flaky, retries=2).send("a").texts() == ["a"]
    letter = StepHarness(Flaky, retries=1, on_error="dead_letter").send("a").routes["dead_letter"][0]
    assert letter.headers["bridge-error-attempt"] == "2" and letter.headers["bridge-error-kind"] == "flink_bridge.step.Transient"
    assert StepHarness(Flaky, retries=2, retry_on=["flink_bridge.step.Transient"]).send("a").texts() == ["a"]
    other = StepHarness(Flaky, retries=2, retry_on=["KeyError"], on_error="dead_letter").send("a").routes["dead_letter"][0]
    assert other.headers["bridge-error-attempt"] == "1" and other.headers["bridge-error"].startswith("flink_bridge.step.Transient: not yet")
    failing = StepHarness(lambda message: message.json(), retries=5, on_error="skip")
    assert failing.send("no JSON") == [] and len(failing.failures) == 1


@fb.asynchronous(capacity=3)
async def doubled(message):
    if message.payload == b"bad":
        raise ValueError("bad")
    return message.text() * 2


def test_async_steps():
    assert StepHarness(doubled).send("a", "b").texts() == ["aa", "bb"]
    harness = StepHarness(doubled, on_error="skip")
    assert harness.send("a", "bad", "c").texts() == ["aa", "cc"] and len(harness.failures) == 1
    with pytest.raises(ValueError, match="bad"):
        StepHarness(doubled).send("a", "bad")


class Clock(fb.Step):
    def open(self, context):
        self.context = context
        self.due = context.state.timers("due")

    def process(self, message):
        self.due.at_processing_time(message.json()["at"], "tag")

    def on_timer(self, timer):
        if timer.time < 40:
            self.due.at_processing_time(timer.time + 10)
        return fb.Json([timer.time, self.context.processing_time, timer.tag, timer.event_time])


def test_processing_time_moves_from_timer_to_timer():
    harness = StepHarness(Clock, state={"due": "timers"}, start=5)
    harness.send({"at": 20}, {"at": 3}, {"at": 1000}, key="k")
    assert harness.advance(50).json() == [[3, 5, "tag", False], [13, 13, "", False], [20, 20, "tag", False], [23, 23, "", False], [30, 30, "", False], [33, 33, "", False], [40, 40, "", False], [43, 43, "", False]]
    assert harness.end() == [] and harness.advance(10_000) == []


class Memory(fb.Step):
    def open(self, context):
        self.seen = context.state.map("seen")
        self.held = context.state.list("held", fb.TEXT)

    def process(self, message):
        self.seen[message.text()] = 1
        self.held.append(message.text())
        return fb.Json([sorted(self.seen), list(self.held)])


def test_entries_go_out_of_date():
    harness = StepHarness(Memory, state={"seen": "map ttl 1min", "held": "list version 2"}, key_by=lambda message: "k")
    assert harness.send("a").json() == [[["a"], ["a"]]]
    harness.advance(59_999)
    assert harness.send("b").json() == [[["a", "b"], ["a", "b"]]]
    harness.advance(1)
    assert harness.send("c").json() == [[["b", "c"], ["a", "b", "c"]]]


@fb.batch
def total(messages):
    return [{"sum": sum(message.json()["n"] for message in messages)}]


def test_the_batch_form():
    assert StepHarness(total).send({"n": 1}, {"n": 2}).json() == [{"sum": 3}]
    harness = StepHarness(total, on_error="skip")
    assert harness.send({"n": 1}, {"m": 2}, {"n": 3}).json() == [{"sum": 1}, {"sum": 3}] and len(harness.failures) == 1


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: StepHarness(Memory, state={"seen": "set"}), "`seen` is declared as `set`"),
        (lambda: StepHarness(Memory, state={"seen": "value", "held": "list"}), "declared as value, not as map"),
        (lambda: StepHarness(Memory, state={"held": "list"}), "`seen` is not declared"),
        (lambda: StepHarness(Memory, state={"seen": "map", "held": "list"}).send("x"), "no key at hand"),
        (lambda: StepHarness(lambda m: fb.To("x", m)).send("x"), "has no route `x`"),
        (lambda: StepHarness(5), "neither a function nor a class"),
        (lambda: StepHarness(total, on_error="retry"), "on_error is"),
        (lambda: StepHarness(total).advance(-1), "does not go back"),
    ],
)
def test_what_cannot_be_is_said(make, words):
    with pytest.raises(Exception, match=words):
        make()


def test_run_step():
    assert run_step(lambda message: message.text().split(), ["a b", b"c", {"d": 1}, fb.Json([2])]).payloads() == [b"a", b"b", b"c", b'{"d":1}', b"[2]"]


def pipeline(**options):
    return PipelineHarness(TOP / "examples" / "quickstart" / "pipeline.yaml", bridgectl=BRIDGECTL, **options)


def test_a_pipeline():
    """Built-in steps over restarts; what sinks get is messages with all that belongs to them."""
    harness = pipeline(parallelism=2)
    harness.send({"user": "ada", "type": "purchase", "amount": 150, "ts": 1000}, {"user": "bob", "type": "view"}, headers={"h": "1"}, timestamp=7)
    harness.restart_worker()
    harness.restart_job(parallelism=3)
    harness.advance(1000)
    out = harness.run()
    assert out["big"].json() == [[{"user": "ada", "type": "purchase", "amount": 150, "ts": 1000, "score": 300}]]
    (view,) = out["small"]
    assert view.json()["score"] == 0 and view.key == b"bob" and view.headers == {"h": "1"} and view.timestamp == 7
    harness.end()
    assert harness.run() == out


def test_texts_reach_a_pipeline_as_they_are():
    text = "\x7f\x85\u2028\ufeff😀ü\""
    harness = pipeline()
    harness.send({"user": text, "type": "view"}, headers={"h": text, "😀": "smile"}, timestamp=7)
    (view,) = harness.run()["small"]
    assert view.json()["user"] == text and view.key == text.encode() and view.headers == {"h": text, "😀": "smile"}


def test_a_pipeline_that_fails(tmp_path):
    harness = pipeline()
    harness.send("no JSON", timestamp=1)
    with pytest.raises(PipelineFailed, match="quickstart|valid"):
        harness.run()
    assert pipeline(config={"on_error": "skip"}).run() == {"big": [], "small": []}
    with pytest.raises(PipelineFailed, match="gone.yaml"):
        PipelineHarness(tmp_path / "gone.yaml", bridgectl=BRIDGECTL).run()
    segment = pipeline(segment="by_user")
    segment.watermark(5)
    segment.idle()
    segment.send({"user": "ada"}, timestamp=9)
    segment.end()
    assert segment.run()["out"][0].key == b"ada"


def test_every_public_name_has_a_sentence():
    for name, value in vars(testing).items():
        if getattr(value, "__module__", None) == testing.__name__ and not name.startswith("_"):
            assert value.__doc__, name
            for each, method in vars(value).items() if isinstance(value, type) else ():
                if callable(method) and not each.startswith("_") and value is not testing.MemoryBackend:
                    assert method.__doc__, f"{name}.{each}"


def test_the_package_is_where_it_is_looked_for():
    assert pathlib.Path(fb.__file__).parent == PACKAGE / "flink_bridge"
