"""The Python package as editors and tests have it, without a sidecar: messages, forms, results, words for what is wrong."""

import asyncio
import concurrent.futures
import doctest
import importlib
import json
import pathlib
import sys
import threading

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "worker" / "hosts" / "python" / "package"
sys.path.insert(0, str(PACKAGE))

import flink_bridge as fb  # noqa: E402
from flink_bridge import calls as async_calls  # noqa: E402
from flink_bridge import engine  # noqa: E402

STEPS = '''
import flink_bridge as fb
number = 5
def plain(message): return None
def two(a, b): return a
async def waits(message): yield message
@fb.filter
async def decides(message): return True
class Empty: pass
class Needs(fb.Step):
    def __init__(self, what): pass
    def process(self, message): return message
'''


def run(target, *messages, form="process"):
    """What a step makes of messages: (index, route, payload) of each output."""
    runner = engine.Runner(target, backend=None, form=form)
    runner.open()
    feed = engine.Feed(messages)
    runner.drive(feed)
    feed.settle()
    return [(index, route, output.payload) for index, route, output in feed.outputs]


@pytest.mark.parametrize("name", ["flink_bridge", "flink_bridge.message", "flink_bridge.step", "flink_bridge.engine", "flink_bridge.calls"])
def test_the_examples_in_the_docs_of_the_package_hold(name):
    found = doctest.testmod(importlib.import_module(name), extraglobs={each: getattr(fb, each) for each in fb.__all__})
    assert found.failed == 0 and (found.attempted > 0 or name == "flink_bridge.calls")


def test_every_public_name_has_a_sentence():
    for name in fb.__all__:
        if not isinstance(getattr(fb, name), fb.Codec):
            assert getattr(fb, name).__doc__, name


def test_a_message_says_what_it_is_and_cannot_be_changed():
    message = fb.Message(b'{"a":1}', key="k", headers={"h": "v"}, timestamp=7)
    assert (message.payload, message.key, message.timestamp, dict(message.headers)) == (b'{"a":1}', b"k", 7, {"h": "v"})
    assert message.json() is message.json() and message.text() == '{"a":1}'
    for name, value in (("payload", b""), ("key", b""), ("timestamp", 1), ("headers", {})):
        with pytest.raises(AttributeError):
            setattr(message, name, value)
    with pytest.raises(TypeError):
        message.headers["h"] = "w"
    with pytest.raises(ValueError):
        fb.Message(b"{").json()


def test_a_view_is_gone_when_the_unit_ends():
    message = fb.Message(b"abc")
    view = message.view()
    assert view.readonly and bytes(view) == b"abc"
    message._release()
    with pytest.raises(ValueError):
        bytes(view)


def test_replace_keeps_what_it_is_not_told():
    message = fb.Message(b"x", key="k", headers={"h": "v"}, timestamp=7)
    assert message.replace(b"y") == fb.Message(b"y", key="k", headers={"h": "v"}, timestamp=7)
    assert message.replace(headers={}, timestamp=8) == fb.Message(b"x", key="k", timestamp=8)
    assert message.replace(json=None).payload == b"null"
    with pytest.raises(TypeError, match="not both"):
        message.replace(b"y", json=1)


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (None, []),
        ([], []),
        ("ä", [(None, "ä".encode())]),
        (bytearray(b"x"), [(None, b"x")]),
        ({"b": 1, "a": "ä"}, [(None, '{"b":1,"a":"ä"}'.encode())]),
        (fb.Json([1]), [(None, b"[1]")]),
        (fb.To("late", ["a", b"b"]), [("late", b"a"), ("late", b"b")]),
        ((x for x in ("a", None, fb.To("late", "b"))), [(None, b"a"), ("late", b"b")]),
    ],
)
def test_what_a_result_is(result, outputs):
    assert run(lambda message: result, fb.Message()) == [(0, *output) for output in outputs]


@pytest.mark.parametrize("result", [5, True, {1}, object(), [["a"]], [5], fb.To("a", fb.To("b", "x"))])
def test_what_is_no_result_fails_in_words(result):
    with pytest.raises(engine.StepError):
        run(lambda message: result, fb.Message())


def test_generators_run_before_the_next_message_comes():
    order = []

    def step(message):
        order.append("called " + message.text())
        return (order.append("ran " + message.text()) or message for _ in range(1))

    assert [output for _, _, output in run(step, fb.Message("1"), fb.Message("2"))] == [b"1", b"2"]
    assert order == ["called 1", "ran 1", "called 2", "ran 2"]


def test_forms():
    one, two = fb.Message("1"), fb.Message("22")
    assert run(fb.filter(lambda message: len(message.payload) > 1), one, two) == [(1, None, b"22")]
    assert run(fb.flat_map(lambda message: {message.text(): 0}.keys()), one) == [(0, None, b"1")]
    assert run(fb.route(lambda message: "a" if message == one else ["a", "b"]), one, two) == [
        (0, "a", b"1"), (1, "a", b"22"), (1, "b", b"22")]  # fmt: skip
    assert run(fb.batch(lambda messages: [str(len(messages)), *messages, "more"]), one, two) == [
        (0, None, b"2"), (1, None, b"1"), (1, None, b"22"), (1, None, b"more")]  # fmt: skip
    assert run(lambda message: message == two, one, two, form="filter") == [(1, None, b"22")]
    feed = engine.Feed([one, fb.Message("22", key="before")])
    engine.Runner(lambda message: message.text() * 2, None, form="key_by").drive(feed)
    assert [(out.payload, out.key) for _, _, out in feed.outputs] == [(b"1", b"11"), (b"22", b"2222")]
    for form, result in ((fb.map, None), (fb.map, ["a"]), (fb.flat_map, "abc"), (fb.batch, "abc")):
        with pytest.raises(engine.StepError):
            run(form(lambda _, result=result: result), one)


def test_async_calls_are_made_at_once_within_their_bounds():
    running, most = 0, 0

    @fb.asynchronous(capacity=3)
    async def step(message):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(int(message.payload)):  # the first ones take the most turns of the loop
            await asyncio.sleep(0)
        running -= 1
        return [message, "more"]

    messages = [fb.Message(str(n)) for n in (9, 5, 1, 0)]
    expected = [(index, None, payload) for index in range(4) for payload in (messages[index].payload, b"more")]
    assert run(step, *messages) == expected and most == 3
    fb.asynchronous(ordered=False)(step)
    as_they_come = run(step, *messages)
    assert sorted(as_they_come, key=lambda output: output[0]) == expected and as_they_come[0][0] == 3


def test_async_calls_are_tried_again_and_timed_out():
    tries = []

    @fb.asynchronous(retries=2, backoff=0)
    async def transient(message):
        tries.append(message.text())
        if len(tries) < 3:
            raise fb.Transient("later")
        return "at last"

    assert run(transient, fb.Message("m")) == [(0, None, b"at last")] and tries == ["m"] * 3

    @fb.asynchronous(timeout=0.01, retries=1, backoff=0)
    async def hangs(message):
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match="no answer within 0.01 s, 2 times"):
        run(hangs, fb.Message("m"))
    for wrong in ({"capacity": 0}, {"timeout": 0}, {"retries": -1}, {"backoff": -1}):
        with pytest.raises(ValueError):
            fb.asynchronous(**wrong)


def test_results_of_a_failed_run_are_not_asked_for_again():
    calls = []

    async def step(message):
        calls.append(message.text())
        if message.payload == b"bad":
            sys.exit("no")
        return message

    runner = engine.Runner(step, backend=None)
    for texts, fails in ((["a", "bad", "b"], True), (["a"], False), (["bad"], True), (["b"], False), (["b"], False)):
        feed = engine.Feed([fb.Message(text) for text in texts])
        if fails:
            with pytest.raises(SystemExit):
                runner.drive(feed)
            assert feed.messages[feed.at].payload == b"bad"
        else:
            runner.drive(feed)
            assert [output.text() for _, _, output in feed.outputs] == texts
    assert sorted(calls) == ["a", "b", "b", "bad", "bad"]


class Waiting(engine.Feed):
    """A run that may be postponed, at a place of its own."""

    postponed = False

    def wait(self):
        return (7, 0)

    def postpone(self):
        self.postponed = True


def test_a_run_that_is_tried_again_is_called_again():
    """A run that failed comes again at the same place, as one that was postponed does; its failure is not handed out twice."""
    calls = []

    @fb.asynchronous(capacity=2)
    async def step(message):
        calls.append(message.text())
        if len(calls) == 1:
            raise fb.Transient("not yet")
        return "good"

    def drive():
        while True:
            feed = Waiting([fb.Message("a")])
            runner.drive(feed)
            if not feed.postponed:
                return [output.text() for _, _, output in feed.outputs]

    runner = engine.Runner(step, backend=None)
    runner.open()
    with pytest.raises(fb.Transient):
        drive()
    assert drive() == ["good"] and calls == ["a", "a"]


def test_only_a_run_that_comes_for_the_first_time_holds_the_slot_up(monkeypatch):
    """Whoever is woken for another's results does not wait for its own."""
    gate, there, patiences = concurrent.futures.Future(), threading.Event(), []
    result = concurrent.futures.Future.result

    @fb.asynchronous(capacity=2)
    async def step(message):
        return await asyncio.wrap_future(gate)

    def waits(future, timeout=None):
        if timeout is not None:
            patiences.append(timeout)
        return result(future, timeout and 0)

    runner = engine.Runner(step, backend=None)
    runner.open()
    monkeypatch.setattr(async_calls, "wake", there.set)
    monkeypatch.setattr(concurrent.futures.Future, "result", waits)
    for _ in range(3):
        feed = Waiting([fb.Message("a")])
        runner.drive(feed)
        assert feed.postponed and not there.is_set()
    gate.set_result("good")
    there.wait()
    feed = Waiting([fb.Message("a")])
    runner.drive(feed)
    assert [output.text() for _, _, output in feed.outputs] == ["good"]
    assert patiences == [async_calls.PATIENCE, 0, 0, 0]


def test_an_async_class_opens_and_closes_in_the_same_loop():
    class Step(fb.Step):
        async def open(self, context):
            self.lock = asyncio.Lock()

        @fb.asynchronous(capacity=2)
        async def process(self, message):
            async with self.lock:
                return message.text() + "!"

        async def close(self):
            assert not self.lock.locked()
            self.lock = None

    runner = engine.Runner(Step, backend=None)
    runner.open()
    feed = engine.Feed([fb.Message("a"), fb.Message("b")])
    runner.drive(feed)
    assert [output.payload for _, _, output in feed.outputs] == [b"a!", b"b!"]
    runner.close()
    assert runner._object.lock is None


def test_what_an_output_does_not_say_is_that_of_the_message_at_hand():
    message = fb.Message("in", key="k", headers={"h": "v"}, timestamp=7)
    for result, expected in (
        ("x", fb.Message("x", key="k", headers={"h": "v"}, timestamp=7)),
        (fb.Message("x"), fb.Message("x", key="k", headers={"h": "v"}, timestamp=7)),
        (fb.Message("x", headers={}, timestamp=8), fb.Message("x", key="k", timestamp=8)),
        (message.replace("x", headers={"a": "b"}), fb.Message("x", key="k", headers={"a": "b"}, timestamp=7)),
    ):
        assert [output for _, output in engine.outputs_of(result, message)] == [expected]
    with pytest.raises(engine.StepError, match="cannot leave here"):
        run(lambda _: fb.Message("x", key="other"), message)


@pytest.fixture
def steps(tmp_path, monkeypatch):
    (tmp_path / "package_steps.py").write_text(STEPS)
    (tmp_path / "broken_steps.py").write_text("import there_is_no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("package_steps", None)


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("no_steps.at_all", "f", "no Python module `no_steps.at_all`"),
        ("package_steps", "plan", "has no `plan`; is `plain` meant"),
        ("package_steps", "number", "neither a function nor a class"),
        ("package_steps", "two", "takes a message"),
        ("package_steps", "Empty", "no method `process"),
        ("package_steps", "Needs", "without arguments"),
        ("package_steps", "waits", "an `async def` that yields"),
        ("package_steps", "decides", "cannot have the form `filter`"),
    ],
)
def test_a_target_that_is_none_is_refused_in_words(steps, module, name, words):
    with pytest.raises(engine.StepError, match=words):
        engine.find_target(module, name)


def test_a_module_that_does_not_import_says_what_it_misses(steps):
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_thing"):
        engine.find_target("broken_steps", "f")


def test_failures_are_told_with_type_place_and_bounds():
    def fails():
        raise ValueError("x" * 10000)

    with pytest.raises(ValueError) as raised:
        fails()
    kind, text, trace, kinds = engine.describe(raised.value)
    assert kind == "ValueError" and text.startswith("ValueError: x") and len(text) <= engine.MESSAGE_MAX + 80 and len(trace) <= engine.TRACEBACK_MAX
    assert text.endswith("in fails)")
    assert kinds.splitlines() == [*(names := ["ValueError", "Exception", "BaseException"]), *[f"builtins.{name}" for name in names]]
    assert engine.describe(SystemExit(3))[1] == "SystemExit: 3 (a step must not end its worker)"
    assert json.dumps(engine.describe(ValueError("\ud800"))[1])
