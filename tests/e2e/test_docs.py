"""The documentation is true: its links lead somewhere, and the README's tutorial does what it says. And `make install` leaves out nothing."""

import json
import os
import re
import shutil
import subprocess

import jsonschema
import pytest
import yaml

from conftest import BRIDGECTL, BUILD, TOP

PAGES = sorted(path for path in TOP.rglob("*.md") if "build" not in path.relative_to(TOP).parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links(page):
    """Relative links lead to files, and their anchors to headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{target} leads nowhere"
        if anchor and place.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{target}: no such heading"


def readme_files():
    """The files that the README's tutorial shows: an indented block behind the line that names each."""
    text = (TOP / "README.md").read_text()
    found = re.findall(r"`(orders\.[\w.]+)`[.:][^\n]*\n\n((?:    [^\n]*\n)+)", text)
    return {name: re.sub(r"^    ", "", body, flags=re.MULTILINE) for name, body in found}


def remembers(workdir, bridgectl, pipeline):
    """The step that remembers, in place of `vat`: its totals go on in the run after the first."""
    step = re.search(r"`(- \{ name: spent, .*\})`", (TOP / "README.md").read_text())[1]
    vat = next(line for line in pipeline.splitlines() if "name: vat" in line)
    large = next(line for line in pipeline.splitlines() if "large: { kind: print" in line)
    pipeline = pipeline.replace(vat, "  " + step).replace(large, large.replace("kind: print", "kind: file, path: large.jsonl"))
    (workdir / "spent.yaml").write_text(pipeline)
    bridgectl("run", "spent.yaml", "--checkpoint", "orders.checkpoint")
    with (workdir / "orders.jsonl").open("a") as orders:
        orders.write('{"order": 5, "customer": "bob", "total": 200}\n')
    bridgectl("run", "spent.yaml", "--checkpoint", "orders.checkpoint")
    large = [json.loads(line) for line in (workdir / "large.jsonl").read_text().splitlines()]
    assert {"key": "bob", "orders": 2, "total": 215} in large


def test_the_tutorial(workdir, bridgectl, bridged):
    """Its files do what it says they do, before and after the step that the reader adds."""
    files = readme_files()
    assert set(files) == {"orders.jsonl", "orders.yaml", "orders.test.yaml"}
    for name, body in files.items():
        (workdir / name).write_text(body)
    bridgectl("check", "orders.yaml")
    printed = bridgectl("run", "orders.yaml", "--slots", "2").stdout
    assert [json.loads(line)["order"] for line in printed.splitlines() if line.startswith("{")] == [1]
    rest = [json.loads(line) for line in (workdir / "rest.jsonl").read_text().splitlines()]
    assert {one["order"] for one in rest} == {2, 3} and all("vat" in one for one in rest)
    assert "1 passed" in bridgectl("test", "orders.test.yaml").stdout
    step = re.search(r"`(- \{ name: note, .*\})`", (TOP / "README.md").read_text())[1]
    lines = files["orders.yaml"].splitlines()
    behind = next(at for at, line in enumerate(lines) if "name: vat" in line)
    lines.insert(behind + 1, "  " + step)
    (workdir / "orders.yaml").write_text("\n".join(lines) + "\n")
    assert '"note"' in bridgectl("run", "orders.yaml").stdout
    assert "flowchart" in bridgectl("graph", "orders.yaml").stdout
    assert "digraph" in bridgectl("graph", "--format", "dot", "orders.yaml").stdout
    assert "note" in bridgectl("explain", "orders.yaml").stdout
    remembers(workdir, bridgectl, files["orders.yaml"])
    bridgectl("compile", "orders.yaml", "-o", "orders.descriptor.yaml")
    sidecar = bridged(descriptor=workdir / "orders.descriptor.yaml", slots=2)
    assert "ready" in bridgectl("slots", "--stats", sidecar.stats_path).stdout
    bridgectl("health", "--stats", sidecar.stats_path)


def test_install(workdir):
    """Everything lands below DESTDIR, and what is installed works from there. What is built already is taken as it is (-o)."""
    variant, _, compiler = BUILD.name.partition("-")
    jar = workdir / "application.jar"  # stands for the real one, which takes minutes to build
    jar.write_text("a jar")
    subprocess.run(
        ["make", "-s", "install", "install-bridge", "-o", "all", "-o", str(jar), f"BRIDGE_JAR={jar}",
         f"DESTDIR={workdir}/root", "PREFIX=/usr", f"VARIANT={variant}", f"CC={compiler or 'gcc'}"],
        cwd=TOP, check=True, capture_output=True, env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0"},
    )  # fmt: skip
    root = workdir / "root" / "usr"
    for name in ("bin/bridged", "lib/flink-bridge/bridge_python.so", "lib/flink-bridge/python/flink_bridge/step.py",
                 "share/flink-bridge/proto/flink_bridge.proto", "share/flink-bridge/proto/flink_worker.proto",
                 "include/flink-bridge/bridge_step.h", "share/flink-bridge/flink-bridge.jar",
                 "share/bash-completion/completions/bridgectl", "share/zsh/site-functions/_bridgectl",
                 "share/fish/vendor_completions.d/bridgectl.fish"):  # fmt: skip
        assert (root / name).stat().st_size > 0
    assert "prefix=/usr\n" in (root / "share/pkgconfig/flink-bridge.pc").read_text()
    schema = json.loads((root / "share/flink-bridge/pipeline.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(readme_files()["orders.yaml"]), schema)
    shutil.copytree(TOP / "examples" / "quickstart", workdir / "quickstart")
    done = subprocess.run([str(root / "bin/bridgectl"), "run", str(workdir / "quickstart/pipeline.yaml")], capture_output=True, text=True,
                          cwd=workdir, env={**os.environ, "EVENTS": str(workdir / "quickstart/events.jsonl"), "OUT": str(workdir)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert BRIDGECTL.exists()
    (workdir / "app.py").write_text("def step(message):\n    return message.text() + '!'\n")
    (workdir / "app.yaml").write_text(
        "name: app\nsources: { in: { kind: generator, count: 2 } }\nsteps:\n"
        "  - { name: step, kind: python, module: app, function: step }\nsinks: { out: { kind: print } }\n"
    )
    done = subprocess.run([str(root / "bin/bridgectl"), "run", "app.yaml"], capture_output=True, text=True, cwd=workdir)
    assert done.stdout == "0!\n1!\n", done.stdout + done.stderr
