"""Every command tells its exit codes and its JSON, and stands in the operators' manual."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from worker.cli.main import command

MANUAL = (Path(__file__).parents[2] / "scripts" / "README.md").read_text("utf-8")
QUESTIONS = ("check", "config", "status", "runs", "explain", "verify", "rebuild", "sql")


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_has_a_command_that_explains_itself(name: str) -> None:
    one = command.commands[name]
    assert one.help is not None
    assert "Exit codes: 0" in one.help
    assert "With --json: {" in one.help
    assert f"projector {name}" in one.help
    assert any("--json" in parameter.opts for parameter in one.params)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_manual_shows_it(name: str) -> None:
    assert f"`{name}" in MANUAL
    assert f"projector {name}" in MANUAL


def switches(one: click.Command) -> Iterator[str]:
    for parameter in one.params:
        yield from parameter.opts


def test_check_and_config_take_every_option_of_the_worker() -> None:
    for name in ("check", "config"):
        assert set(switches(command.commands["run"])) <= set(switches(command.commands[name]))


def test_the_one_that_writes_says_so() -> None:
    for name in QUESTIONS:
        text = command.commands[name].help or ""
        assert ("It writes:" in text) == (name == "rebuild")
