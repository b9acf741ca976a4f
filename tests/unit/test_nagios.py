"""`check --nagios` ends with 0 to 3 and a line for the monitoring system in every case."""

import os
from pathlib import Path

import pytest

from worker.cli import check
from worker.cli import context as opening
from worker.cli.main import main

SECRET = "s3cret"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "set_up_logging", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("PROJECTOR_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["more\x1b[2J|\n"], r"more\x1b[2J/\n"),
        (["--nats", f"http://me:{SECRET}@host"], "expected nats://HOST"),
        (["--token-file", "/none"], "none"),
        (["--user", "me", "--database", "sqlite:///no.db"], "--user: a user and"),
        (["--database", f"postgresql://me:{SECRET}@host/x"], "never in the URL"),
        (["--busy-timeout", "abc"], "expected seconds"),
    ],
)
def test_a_wrong_option_is_unknown_wherever_nagios_stands(
    capsys: Capture, arguments: list[str], words: str
) -> None:
    for form in (["--nagios", *arguments], [*arguments, "--nagios"]):
        assert main(["check", *form]) == 3
        output, errors = capsys.readouterr()
        assert output.startswith("PROJECTOR UNKNOWN: ")
        assert words in output
        assert output.removesuffix("\n").isprintable()
        assert "|" not in output
        assert SECRET not in output + errors
        assert errors == ""


def test_a_bug_is_unknown_and_its_text_is_not_shown(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(check, "find_all", fail)
    assert main(["check", "--nagios", "--database", "sqlite:///no.db"]) == 3
    output, errors = capsys.readouterr()
    assert output.startswith("PROJECTOR UNKNOWN: a bug (ValueError)")
    assert SECRET not in output + errors
    assert main(["check", "--database", "sqlite:///no.db"]) == 70


def test_help_and_other_checks_stay_the_same(capsys: Capture, tmp_path: Path) -> None:
    assert main(["check", "--no-such-option"]) == 64
    assert capsys.readouterr().out == ""
    assert main(["check", "--nagios", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ")
