"""The rule by itself, in this process: `pytest examples/fraud`, with the package flink_bridge installed (or on PYTHONPATH)."""

import pathlib
import sys

import pytest
from flink_bridge.testing import StepHarness

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from rules import SmallThenLarge


@pytest.fixture
def rule() -> StepHarness:
    return StepHarness(SmallThenLarge, state={"tried": "value", "due": "timers"}, routes=["passed", "suspect"])


def test_an_alert_over_a_restart(rule: StepHarness) -> None:
    rule.send({"amount": 0.5}, key="ada", timestamp=1000)
    rule.restart()
    out = rule.send({"amount": 900}, key="ada", timestamp=31_000)
    assert out.json() == [{"amount": 900}]
    assert out.routes["suspect"].json() == [{"amount": 900, "after": 30_000}]
    assert rule.metrics == {"alerts": 1}


def test_accounts_have_nothing_to_do_with_one_another(rule: StepHarness) -> None:
    rule.send({"amount": 1}, key="ada", timestamp=1000)
    assert "suspect" not in rule.send({"amount": 900}, key="bob", timestamp=2000).routes


def test_what_was_tried_is_forgotten(rule: StepHarness) -> None:
    rule.send({"amount": 1}, key="ada", timestamp=1000)
    rule.watermark(61_001)
    assert not rule.backend.timers and not rule.backend.states[0].held
