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


def named(name: str) -> click.Command:
    found = command.get_command(click.Context(command), name)
    assert found is not None
    return found


def switches(one: click.Command) -> set[str]:
    return {switch for parameter in one.params for switch in parameter.opts}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_help_of_a_command_has_its_exit_codes_its_json_and_an_example(name: str) -> None:
    text = named(name).help or ""
    assert "Exit codes: 0" in text
    assert "With --json: {" in text
    assert f"projector {name}" in text
    assert "--json" in switches(named(name))
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
    assert switches(named("run")) <= switches(named(name))


def test_every_command_is_listed_with_its_help_and_no_other_is_known() -> None:
    listed = command.list_commands(click.Context(command))
    assert set(listed) >= {*QUESTIONS, "run", "migrate", "rejected", "backup", "restore"}
    for name in listed:
        assert named(name).name == name
        assert named(name).get_short_help_str()
    assert command.get_command(click.Context(command), "output") is None
