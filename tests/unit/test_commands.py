"""The help of every command has its exit codes, its JSON and an example, as has the manual."""

from pathlib import Path

import click
import pytest

from worker.cli.main import command
from worker.cli.rejected import rejected

MANUAL = (Path(__file__).parents[2] / "scripts" / "README.md").read_text("utf-8")
QUESTIONS = (
    "check",
    "config",
    "status",
    "runs",
    "executions",
    "explain",
    "verify",
    "rebuild",
    "sql",
    "upkeep",
)


def switches(one: click.Command) -> set[str]:
    return {switch for parameter in one.params for switch in parameter.opts}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_help_of_a_command_has_its_exit_codes_its_json_and_an_example(name: str) -> None:
    text = command.commands[name].help or ""
    assert "Exit codes: 0" in text
    assert "With --json: {" in text
    assert f"projector {name}" in text
    assert "--json" in switches(command.commands[name])
    assert ("It writes:" in text) == (name == "rebuild")
    assert f"`{name}" in MANUAL
    assert f"projector {name}" in MANUAL


@pytest.mark.parametrize("name", rejected.commands)
def test_the_help_of_a_command_for_rejected_events_has_an_example_and_its_json(name: str) -> None:
    text = rejected.commands[name].help or ""
    assert f"projector rejected {name}" in text
    assert "With --json: " in text


@pytest.mark.parametrize("name", ["check", "config"])
def test_check_and_config_have_every_option_of_run(name: str) -> None:
    assert switches(command.commands["run"]) <= switches(command.commands[name])
