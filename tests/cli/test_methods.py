"""How `vireid methods NAME` prints settings."""

from __future__ import annotations

import pytest
from command_line import call

from vireid.cli.methods import lines
from vireid.workflows.method_list import settings


def test_every_line_fits_into_a_narrow_terminal() -> None:
    for title, group in settings("mclnet").items():
        for line in lines(group, 80):
            assert len(line) <= 80, (title, line)


def test_the_line_of_documentation_stands_beside_or_under_the_setting() -> None:
    width = settings("agw")["network and losses"][:1]
    assert list(lines(width, 80)) == ["  width=64  whole number >= 1  Channels of the stem; 64 is ResNet-50."]
    assert list(lines(width, 60)) == ["  width=64  whole number >= 1", "      Channels of the stem; 64 is ResNet-50."]


def test_the_command_prints_every_setting_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = settings("agw", "regdb")
    text = call("methods", "agw", "--dataset", "regdb").stdout
    assert list(groups) == ["network and losses", "recipe for regdb"]
    assert all(
        f"  {one.name}=" in text and one.documentation[:30] in text for group in groups.values() for one in group
    )
    assert "  softmax=official  official or exact" in text and "sampler.pids=8  whole number >= 1" in text
    assert "agw" in call("methods").stdout


def test_stages_are_groups() -> None:
    assert list(settings("d2rl"))[:3] == ["network and losses", "recipe for sysu, stage 0", "recipe for sysu, stage 1"]
