"""What the READMEs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = sorted(
    path
    for path in ROOT.rglob("README.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_every_link_leads_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_every_module_that_is_named_is_there(path: Path) -> None:
    for name in re.findall(r"`([a-z_./]+\.(?:py|sql|ini))`", path.read_text("utf-8")):
        assert any((folder / name).exists() for folder in (path.parent, ROOT)), name


def test_every_name_in_code_that_the_developers_page_tells_is_in_the_code() -> None:
    text = (ROOT / "worker" / "README.md").read_text("utf-8")
    code = "\n".join(
        path.read_text("utf-8")
        for room in ("worker", "repo")
        for path in (ROOT / room).rglob("*.py")
    )
    for name in re.findall(r"`((?:[A-Z]\w+\.)?_?[a-z_]+|[A-Z]\w+)`", text):
        assert name.rpartition(".")[2] in code, name
