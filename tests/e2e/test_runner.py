"""The test runner runs what it is asked for."""

import argparse
import runpy

from conftest import TOP

COLLECT = runpy.run_path(str(TOP / "tests" / "run.py"))["collect"]
KINDS = ("unit", "threaded", "replay", "e2e", "cases", "cluster")


def jobs(*names, **variants):
    """The names of the jobs that names pick."""
    options = dict.fromkeys(KINDS, []) | {"java": None, "timeout": 1, "names": list(names)} | variants
    return {job.name for job in COLLECT(argparse.Namespace(**options))}


def test_chaos_is_all_files_of_it():
    """`make chaos` has them run by one name; nothing else runs them."""
    files = {path.stem for path in (TOP / "tests" / "e2e").glob("chaos*.py")}
    assert len(files) > 1 and jobs("chaos", e2e=["release"]) == files
    assert not files & jobs(e2e=["release"])


def test_names_pick_jobs_of_all_kinds():
    """None picks all."""
    assert jobs("check_ring", "test_runner", e2e=["release"], unit=["release"]) == {"check_ring", "test_runner"}
    everything = jobs(e2e=["release"], unit=["release"])
    assert {path.stem for pattern in ("check_*.c", "e2e/test_*.py") for path in (TOP / "tests").glob(pattern)} < everything
