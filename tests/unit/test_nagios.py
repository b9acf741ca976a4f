"""`check --nagios` ends with 0 to 3 and a line for the monitoring system, whatever happens."""

import os
from pathlib import Path

import pytest

from worker.cli import check
from worker.cli import context as opening
from worker.cli.main import main

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "set_up_logging", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("PROJECTOR_")]:
        monkeypatch.delenv(name)


def test_wrong_options_are_unknown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def assert_unknown(*arguments: object, words: str) -> None:
        for form in (("--nagios", *arguments), (*arguments, "--nagios")):
            assert main(["check", *map(str, form)]) == 3
            output, errors = capsys.readouterr()
            assert output.startswith("PROJECTOR UNKNOWN: ")
            assert words in output
            assert output.removesuffix("\n").isprintable()
            assert "|" not in output
            assert SECRET not in output + errors
            assert errors == ""

    assert_unknown("--no-such-option", words="--no-such-option")
    assert_unknown("more\x1b[2J|\n", words=r"more\x1b[2J/\n")
    assert_unknown("--nats", f"http://me:{SECRET}@host", words="expected nats://HOST")
    assert_unknown("--token-file", tmp_path / "none", words="none")
    assert_unknown("--user", "me", "--database", "sqlite:///no.db", words="--user: a user and")
    monkeypatch.setenv("PROJECTOR_BATCH", "abc")
    assert_unknown(words="expected a whole number")


def test_a_bug_is_unknown_and_its_text_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(check, "find_all", fail)
    assert main(["check", "--nagios", "--database", "sqlite:///no.db"]) == 3
    output, errors = capsys.readouterr()
    assert output.startswith("PROJECTOR UNKNOWN: a bug (ValueError)")
    assert SECRET not in output + errors
    assert main(["check", "--database", "sqlite:///no.db"]) == 70


def test_without_it_a_wrong_option_stays_one_and_help_stays_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "--no-such-option"]) == 64
    assert capsys.readouterr().out == ""
    assert main(["check", "--nagios", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ")
