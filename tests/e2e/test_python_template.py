"""The template process of Python steps, in a whole sidecar: modules are imported once for all slots, and whatever happens to it costs nobody more than that."""

import json
import os
import random
import re
import signal

import pytest

from conftest import PATIENCE, SANITIZED, alive, find_key, wait_until
from test_python import COUNTING, Counts, kill_owner, open_keyed, payloads, pipeline, python  # noqa: F401

STEP = pipeline("name: step, function: step")
TOLD = r"each process of a slot loads the code of generation 1 by itself: "


def slots(sidecar):
    return sidecar.stats_json("slots")["slots"]


def wait_for_heirs(sidecar):
    wait_until(lambda: all(slot["heirs"] == 1 and slot["state"] == "ready" for slot in slots(sidecar)), lambda: f"heirs\n{sidecar.log()}")


def counter(sidecar, name):
    return find_key(sidecar.stats_json("stats")["supervisor"], name)


def template(sidecar):
    """The pid of the template of the code that is served; None when there is none."""
    return sidecar.role("-templ")


def deaths(sidecar):
    """What the list of deaths has of templates: the generation of code, the cause, the end."""
    listed = [death for death in sidecar.stats_json("deaths")["deaths"] if death["process"] == "template"]
    assert all(death["then"] == "each process loads its code by itself" for death in listed), listed
    return [(death["number"], death["cause"], death["end"]) for death in listed]


def reload(sidecar):
    """Reloads the code; how that ended, and its words."""
    sidecar.stats("reload")
    wait_until(lambda: find_key(sidecar.stats_json("reloading"), "state") in ("done", "failed"), sidecar.log)
    told = sidecar.stats_json("reloading")
    return find_key(told, "state"), find_key(told, "message")


def kill_one_owner_more(sidecar, killed):
    """Kills the slot's owner once another one than the last is there, with an heir behind it."""

    def look():
        (slot,) = slots(sidecar)
        return slot["pid"] if slot["heirs"] == 1 and slot["pid"] not in killed[-1:] else 0

    killed.append(wait_until(look, lambda: f"another owner and an heir\n{sidecar.log()}"))
    os.kill(killed[-1], signal.SIGKILL)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


# ---- What is shared, and what is not -----------------------------------------------------------------------------------

ONCE = """
import os, random
with open("WORKDIR/imports", "a") as file: file.write("imported\\n")
own = random.Random()
class Step(fb.Step):
    def open(self, context):
        with open("WORKDIR/opens", "a") as file: file.write(f"{os.getpid()}\\n")
        self.roll, self.own = random.random(), own.random()
    def process(self, message):
        return f"{os.getpid()} {self.roll} {hash('text')} VERSION"
"""


def test_modules_are_imported_once_and_steps_opened_in_each_worker(python, client, workdir):
    """One import for two slots, their heirs, and those that come after deaths; one more for new code. Each rolls its own dice."""
    code = "import flink_bridge as fb\n" + ONCE.replace("WORKDIR", str(workdir))
    (workdir / "imports").touch()
    sidecar = python(code.replace("VERSION", "1"), pipeline("name: step, function: Step"), slots=2)
    wait_for_heirs(sidecar)
    assert lines(workdir / "imports") == ["imported"]
    seen = {}
    for number, slot in enumerate(slots(sidecar)):
        for _ in range(3):
            session = client(sidecar.unix).session(sidecar, allocation_id=f"a{number}", attempt_id=f"t{number}", subtask=number, parallelism=2,
                                                   key_group_first=64 * number, key_group_last=64 * number + 63)  # fmt: skip
            pid, roll, hashed, version = session.exchange(b"x")[0].decode().split()
            seen[pid] = (roll, hashed)
            assert version == "1"
            session.finish()
            killed = int(pid)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: all(each["pid"] not in (0, killed) for each in slots(sidecar)), sidecar.log)
            wait_for_heirs(sidecar)
    assert len({roll for roll, _ in seen.values()}) == len(seen) >= 6, seen
    assert len({hashed for _, hashed in seen.values()}) == 1, "the seed of hashes is that of the template"
    assert lines(workdir / "imports") == ["imported"], sidecar.log()
    assert set(lines(workdir / "opens")) >= set(seen) and len(set(lines(workdir / "opens"))) == len(lines(workdir / "opens"))
    assert counter(sidecar, "template_forks") >= 2 * 2 + 6 and counter(sidecar, "templates") == 1
    first = template(sidecar)
    (workdir / "app.py").write_text(code.replace("VERSION", "2"))
    assert reload(sidecar)[0] == "done"
    wait_for_heirs(sidecar)
    wait_until(lambda: counter(sidecar, "templates") == 1 and not alive(first), "the old template to end")
    assert len(lines(workdir / "imports")) == 1 + 2, "the check of the new code, and its template"
    assert client(sidecar.unix).session(sidecar, allocation_id="b", attempt_id="b").exchange(b"x")[0].endswith(b" 2")


def test_who_dies_without_parents_does_not_stay_as_a_zombie(python, client):
    """A process whose parent has died goes to the supervisor, where it is reaped."""
    code = """
import subprocess
def step(message):
    return subprocess.run(["sh", "-c", "true & echo $!"], capture_output=True).stdout
"""
    sidecar = python(code, STEP)
    session = client(sidecar.unix).session(sidecar)
    for _ in range(20):
        orphan = int(session.exchange(b"x")[0])
        wait_until(lambda orphan=orphan: not os.path.exists(f"/proc/{orphan}"), lambda: f"the orphan to be reaped\n{sidecar.log()}")


def test_a_function_that_makes_keys_has_a_template_too(python, client, workdir):
    code = f"open({str(workdir / 'imports')!r}, 'a').write('imported\\n')\ndef key(message): return message.text()[0]\n"
    text = STEP.replace("kind: python, module: app, name: step, function: step", "kind: key_by, name: step, module: app, function: key")
    sidecar = python(code, text, slots=2)
    session = client(sidecar.unix).session(sidecar)
    (record,) = session.results(session.send_records(b"abc"))
    assert record.key == b"a" and lines(workdir / "imports") == ["imported"]


# ---- When it cannot be -------------------------------------------------------------------------------------------------

THREAD = """
import threading
thread = threading.Thread(target=threading.Event().wait, name="the-poller", daemon=True)
thread.start()
def step(message): return str(thread.is_alive())
"""


def test_a_module_that_starts_a_thread_is_loaded_by_each_process(python, client):
    sidecar = python(THREAD, STEP, slots=2)
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"x") == [b"True"]
    kill_owner(sidecar)
    assert session.exchange(b"x") == [b"True"]
    told = re.findall(TOLD + ".*", sidecar.log())
    assert len(told) == 1 and "step \"step\": importing its module starts 1 thread, 'the-poller': start them in open()" in told[0], told
    assert counter(sidecar, "template_forks") == 0


def test_threads_that_end_at_a_fork_are_none(python, client):
    """As those of numerical libraries do: they stop before a fork, and start when they are needed."""
    code = """
import os, threading
stop = threading.Event()
pool = threading.Thread(target=stop.wait)
pool.start()
def end():
    stop.set()
    pool.join()
os.register_at_fork(before=end)
def step(message): return str(threading.active_count())
"""
    sidecar = python(code, STEP)
    assert client(sidecar.unix).session(sidecar).exchange(b"x") == [b"1"]
    assert counter(sidecar, "template_forks") >= 1 and "by itself" not in sidecar.log()


def test_a_template_that_dies_while_it_loads_is_done_without(python, client):
    code = """
import os
if "templ" in open("/proc/self/comm").read(): os.kill(os.getpid(), 9)
def step(message): return message
"""
    sidecar = python(code, STEP)
    assert client(sidecar.unix).session(sidecar).exchange(b"x") == [b"x"]
    assert re.search(TOLD + r"the template \(pid \d+\) died of signal 9 \(Killed\)", sidecar.log()), sidecar.log()
    assert counter(sidecar, "template_forks") == 0 and deaths(sidecar) == [(1, "outside", "signal 9 (Killed)")]


def test_a_template_that_its_code_ends_is_blamed_on_it(python, client):
    code = """
import os
if "templ" in open("/proc/self/comm").read(): os.abort()
def step(message): return message
"""
    sidecar = python(code, STEP)
    assert client(sidecar.unix).session(sidecar).exchange(b"x") == [b"x"]
    assert deaths(sidecar) == [(1, "code", "signal 6 (Aborted)")] and counter(sidecar, "deaths_blamed") == 1


def test_a_killed_template_leaves_the_slots_as_they_are(python, client, workdir):
    sidecar = python("def step(message): return '1'\n", STEP)
    session = client(sidecar.unix).session(sidecar)
    wait_for_heirs(sidecar)
    forks = counter(sidecar, "template_forks")
    os.kill(template(sidecar), signal.SIGKILL)
    wait_until(lambda: counter(sidecar, "templates") == 0, "its end to be noted")
    for _ in range(3):
        kill_owner(sidecar)
        assert session.exchange(b"x") == [b"1"]
    wait_for_heirs(sidecar)
    assert counter(sidecar, "template_forks") == forks and template(sidecar) is None
    (workdir / "app.py").write_text("def step(message): return 'two'\n")
    assert reload(sidecar)[0] == "done"
    assert session.exchange(b"x") == [b"two"] and counter(sidecar, "templates") == 1
    assert counter(sidecar, "template_forks") > forks
    assert deaths(sidecar) == [(1, "outside", "signal 9 (Killed)")] and counter(sidecar, "deaths_blamed") == 0


def test_words_about_code_that_does_not_load_are_those_of_a_worker(python, client, workdir):
    """At the start, and at a reload, which changes nothing then."""
    sidecar = python("import nothing_like_it\n", STEP, wait=False)
    assert sidecar.process.wait(PATIENCE) == 1
    log = sidecar.log()
    words = "segment \"step\" step \"step\" cannot be opened: ModuleNotFoundError: No module named 'nothing_like_it'"
    assert f"error worker 0: {words}" in log and "cannot start: worker 0 could not open the pipeline's steps" in log, log
    sidecar = python("def step(message): return '1'\n", STEP)
    session = client(sidecar.unix).session(sidecar)
    (workdir / "app.py").write_text("import nothing_like_it\n")
    state, message = reload(sidecar)
    assert state == "failed" and "No module named 'nothing_like_it'" in message
    assert session.exchange(b"x") == [b"1"] and counter(sidecar, "templates") == 1


def test_code_that_loads_only_when_it_is_checked_changes_nothing(python, client, workdir):
    """What fails in the template and in the process that then loads by itself fails the reload."""
    sidecar = python("def step(message): return '1'\n", STEP)
    session = client(sidecar.unix).session(sidecar)
    (workdir / "app.py").write_text("if 'check' not in open('/proc/self/comm').read(): raise ValueError('no worker')\ndef step(message): pass\n")
    state, message = reload(sidecar)
    assert state == "failed" and "did not load it, and ended; the log has its words" in message
    assert re.search(r"error worker 0: .*ValueError: no worker", sidecar.log()) and session.exchange(b"x") == [b"1"]
    (workdir / "app.py").write_text("def step(message): return 'two'\n")
    assert reload(sidecar)[0] == "done" and session.exchange(b"x") == [b"two"]
    wait_until(lambda: counter(sidecar, "templates") == 1, "the old template to end")


# ---- Under load --------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_supervisor_that_is_killed(python):
    sidecar = python("def step(message): return message\n", STEP, slots=2)
    wait_for_heirs(sidecar)
    left = sidecar.processes()
    assert len(left) == 1 + 1 + 1 + 4, "supervisor, front, template, workers and heirs"
    os.kill(sidecar.pid, signal.SIGKILL)
    sidecar.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in left), "all to end")


@pytest.mark.timeout(PATIENCE * 10)
def test_workers_out_of_a_template_can_die_all_the_time(python, client):
    """Each death is answered by another process, and everything is counted once."""
    sidecar = python(COUNTING, pipeline("name: count, function: Count, state: { seen: value, last: list }", keyed=True))
    session, roll, counts = open_keyed(sidecar, client, timeout=PATIENCE * 10), random.Random(11), Counts()
    killed = []
    for number in range(40 if SANITIZED else 200):
        sent = []
        for _ in range(2):
            keys = [f"k{roll.randrange(9)}" for _ in range(roll.randrange(1, 200))]
            sent.append((session.send_records(*[session.keyed(key.encode(), str(number).encode()) for key in keys]), keys))
        kill_one_owner_more(sidecar, killed)
        for seq, keys in sent:
            assert payloads(session.results(seq)) == counts.of(keys, str(number))
    wait_until(lambda: counter(sidecar, "takeovers") >= len(killed), lambda: sidecar.stats("stats"))
    assert "by itself" not in sidecar.log() and counter(sidecar, "templates") == 1


@pytest.mark.timeout(PATIENCE * 10)
def test_reloads_under_load_bring_new_code(python, client, workdir):
    code = "def step(message): return 'VERSION ' + message.text()\n"
    sidecar = python(code.replace("VERSION", "0"), STEP, slots=2)
    session, versions = client(sidecar.unix).session(sidecar, timeout=PATIENCE * 10), []
    for version in range(1, 4 if SANITIZED else 6):
        (workdir / "app.py").write_text(code.replace("VERSION", str(version * 1111)))
        sidecar.stats("reload")
        while find_key(sidecar.stats_json("reloading"), "state") in ("checking", "replacing"):
            answers = [payload.decode().split() for payload in session.exchange(b"a", b"b")]
            assert [text for _, text in answers] == ["a", "b"]
            versions += [int(number) for number, _ in answers]
        assert find_key(sidecar.stats_json("reloading"), "state") == "done", sidecar.log()
        assert session.exchange(b"c") == [f"{version * 1111} c".encode()]
    assert versions == sorted(versions), "never back to older code"
    assert not (workdir / "__pycache__").exists(), "compiled code of the same size and second would be taken for newer"
    wait_until(lambda: counter(sidecar, "templates") == 1, "old templates to end")
    assert json.loads(sidecar.stats("stats json"))["supervisor"]["reloads"] == version
