"""`bridgectl run --checkpoint` killed at random for CHAOS_SECONDS, again and again from the beginning, with state and without: `make chaos`."""

import json
import os
import random
import shutil
import time

import pytest

from test_run_checkpoint import ROUTED, check_routed, check_stateful, read_records, run_until_done, start, stateful  # noqa: F401

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))


@pytest.mark.timeout(SECONDS + 240)
def test_chaos_of_runs(start, workdir):  # noqa: F811
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"CHAOS_SEED={seed}")
    draw = random.Random(seed)
    deadline, rounds, kills = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < deadline or rounds == 0:
        for entry in workdir.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        slots = lambda: ["--slots", str(draw.randint(1, 4))]  # noqa: E731
        with open(workdir / "in", "w") as file:
            if rounds % 2 == 0:
                file.writelines(json.dumps(record) + "\n" for record in read_records())
            else:
                file.writelines(json.dumps({"k": f"key {n % 31}", "n": n}) + "\n" for n in range(60000))
        if rounds % 2 == 0:
            outputs, pipeline = ("totals", "timed", "clocked", "even", "odd", "loose"), lambda: stateful(draw.randint(1, 5), draw.randint(1, 5))
            kills += run_until_done(start, workdir, pipeline, outputs, draw, 40, 1_000_000, slots)
            check_stateful(workdir)
        else:
            kills += run_until_done(start, workdir, lambda: ROUTED, ("odd", "left", "again"), draw, 40, 400_000, slots)
            check_routed(workdir)
        rounds += 1
    print(f"{rounds} rounds, {kills} kills")
