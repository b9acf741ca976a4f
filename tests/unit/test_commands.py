"""The help of every command has its exit codes, its JSON and an example, as has the manual."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.commands import run_here, run_projector
from worker.cli.help import sections
from worker.cli.main import command

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


def paths(group: click.Group = command, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is no group, with what calls it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from paths(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


ALL = dict(paths())


@pytest.mark.parametrize("path", ALL)
def test_the_help_of_each_command_has_two_examples_and_its_exit_codes(path: str) -> None:
    text = ALL[path].help or ""
    assert len(re.findall(rf"^ *(?:\S.*\()?projector {path}\b", text, re.MULTILINE)) >= 2
    assert "Exit code" in text
    if "--json" in switches(ALL[path]):
        assert "With --json: " in text


@pytest.mark.parametrize("path", ALL)
def test_each_option_stands_in_the_section_of_its_kind_the_commands_own_first(path: str) -> None:
    root = click.Context(command, info_name="projector", **command.context_settings)
    context = click.Context(ALL[path], info_name=path, parent=root)
    found = sections(ALL[path], context)
    assert next(iter(found)) == "Options"
    of = {one.name: title for title, several in found.items() for one in several}
    expected = {"nats": "Connection", "creds_file": "Credentials", "as_json": "Output"}
    assert expected.items() & of.items() == {
        (name, title) for name, title in expected.items() if name in of
    }
    lines = ALL[path].get_help(context).splitlines()
    shown = [line.removesuffix(":") for line in lines if line.removesuffix(":") in found]
    assert shown == [title for title in found if len(found[title]) > 0]


def test_a_manual_page_holds_the_whole_help_and_nothing_that_troff_takes_for_a_command(
    tmp_path: Path,
) -> None:
    assert run_here("man", "--to", tmp_path).code == 0
    written = {page.name for page in tmp_path.iterdir()}
    assert written >= {f"projector-{path.replace(' ', '-')}.1" for path in ALL} | {"projector.1"}
    page = run_here("man", "rejected", "retry").output
    assert (tmp_path / "projector-rejected-retry.1").read_text("utf-8") == page
    assert ".nf\nprojector rejected retry 7 8\n" in page
    known = (".TH", ".SH", ".PP", ".TP", ".B", ".nf", ".fi")
    commands = [line for line in page.splitlines() if line[:1] in (".", "'")]
    assert all(line.split()[0] in known for line in commands)
    with pytest.raises(click.UsageError, match="does not exist"):
        run_here("man", "nothing")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    script = run_here("completion", shell).output
    assert "_PROJECTOR_COMPLETE" in script

    def completed(*words: str) -> list[str]:
        arguments = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        asked = {"_PROJECTOR_COMPLETE": f"{shell}_complete", **arguments}
        return run_projector(cwd=tmp_path, **asked).output.split()

    if shell == "bash":
        assert completed("projector", "expl") == ["plain,explain"]
        assert "plain,--overdue" in completed("projector", "runs", "--ov")
        assert completed("projector", "runs", "-o", "c") == ["plain,csv"]


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
