"""The READMEs name files, options, log events and names of the code that exist."""

import re
from pathlib import Path

import click
import pytest

from worker.cli.main import run

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/**/README.md"))]
RUNBOOK = (ROOT / "scripts" / "README.md").read_text("utf-8")
CODE = "\n".join(
    path.read_text("utf-8") for room in ("worker", "repo") for path in (ROOT / room).rglob("*.py")
)


def section(title: str) -> str:
    return RUNBOOK.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_and_every_named_file_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`([a-z_./]+\.(?:py|sql|ini))`", text):
        assert (path.parent / name).exists() or (ROOT / name).exists(), name
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_the_developers_page_names_only_things_that_are_in_the_code() -> None:
    text = (ROOT / "worker" / "README.md").read_text("utf-8")
    for name in re.findall(r"`((?:[A-Z]\w+\.)?_?[a-z_]+|[A-Z]\w+)`", text):
        assert name.rpartition(".")[2] in CODE, name


def test_the_runbook_lists_every_option_of_the_worker_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([^|]*) \|", section("Options"), re.MULTILINE))
    options = {option.opts[0]: option for option in run.params}
    assert list(listed) == list(options)
    for name, option in options.items():
        default = option.default
        if isinstance(option, click.Option) and isinstance(default, str | int | list | tuple):
            (default,) = default if isinstance(default, list | tuple) else (default,)
            assert listed[name] == ("off" if default is False else f"`{default}`")


def test_the_runbook_lists_exactly_the_events_that_the_worker_logs() -> None:
    listed = re.findall(r"`([a-z]+\.[a-z_]+)`", section("Log events"))
    assert all(f'"{event}"' in CODE for event in listed)
    assert set(re.findall(r'\blog\.\w+\(\s*"([a-z]+\.[a-z_]+)"', CODE)) <= set(listed)
