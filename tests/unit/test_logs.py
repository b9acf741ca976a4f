import json
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from worker.codec.timestamps import parse_instant
from worker.logs import JSON, TEXT, set_up_logging

HOSTILE = "pc\n12:00:00 ERROR   worker.failed\r\u2028\x1b[31m\x00 x=y"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    libraries = [logging.getLogger(name) for name in ("nats", "asyncio", "yoyo")]
    before = root.handlers[:], root.level, [library.level for library in libraries]
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for library, level in zip(libraries, before[2], strict=True):
        library.setLevel(level)
    logging.captureWarnings(False)


def line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    (only,) = captured.err.splitlines()
    return only


def logged(capsys: pytest.CaptureFixture[str], form: str, **fields: Any) -> str:
    set_up_logging("info", form)
    logging.getLogger("worker.test").warning("event.rejected", extra=fields)
    return line(capsys)


def test_a_json_line_has_time_level_logger_and_event_and_the_fields_of_the_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = json.loads(logged(capsys, JSON, stream_sequence=7, names=["a", "b"], more={"x": 1}))
    assert parse_instant(record.pop("time")) > 0
    assert record == {
        "level": "warning",
        "logger": "worker.test",
        "event": "event.rejected",
        "stream_sequence": 7,
        "names": ["a", "b"],
        "more": {"x": 1},
    }


def test_the_time_of_a_json_line_is_utc_in_the_stored_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging("info", JSON)
    record = logging.makeLogRecord({"msg": "x", "levelno": logging.INFO, "levelname": "INFO"})
    record.created = 1_779_278_400.25
    logging.getLogger().handle(record)
    assert json.loads(line(capsys))["time"] == "2026-05-20T12:00:00.250+00:00"


@pytest.mark.parametrize("name", [HOSTILE, "\ud800", "\u00fcml\u00e4ut \U0001f680", ""], ids=ascii)
def test_a_json_line_holds_any_name_on_one_line(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert json.loads(logged(capsys, JSON, subject=name))["subject"] == name


def test_a_json_line_holds_the_traceback_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", JSON)
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        logging.getLogger("worker.test").exception("worker.failed")
    record = json.loads(line(capsys))
    assert record["level"] == "error"
    assert "RuntimeError: a bug" in record["exc_info"]


def test_a_text_line_shows_level_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    text = logged(capsys, TEXT, stream_sequence=7, names=["a", "b"], more={"x": 1})
    assert text.split()[1:] == [
        "WARNING",
        "event.rejected",
        "stream_sequence=7",
        "names=a,b",
        "x=1",
    ]


def test_a_name_stays_on_the_line_and_in_its_field_of_the_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = logged(capsys, TEXT, subject=HOSTILE, names=[HOSTILE], more={"x": HOSTILE}, after=1)
    assert text.isprintable()
    assert text.count(ascii(HOSTILE)) == 3
    assert text.endswith("  after=1")


@pytest.mark.parametrize("name", ["", "\ud800", "\u202e", "two words"], ids=ascii)
def test_a_name_that_cannot_be_shown_plainly_is_quoted_in_the_text(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert logged(capsys, TEXT, subject=name).endswith(f"subject={name!a}")


@pytest.mark.parametrize("form", [JSON, TEXT])
def test_what_is_below_the_level_is_not_logged(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    set_up_logging("warning", form)
    logging.getLogger("worker.test").info("unseen")
    assert capsys.readouterr().err == ""


def test_libraries_are_heard_from_warning_on_also_at_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging("debug", TEXT)
    for name in ("nats", "nats.aio.client", "asyncio", "yoyo", "yoyo.migrations"):
        logging.getLogger(name).info("unseen")
    logging.getLogger("worker.test").debug("seen")
    assert "seen" in line(capsys).split()


def test_libraries_are_no_louder_than_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("critical", TEXT)
    logging.getLogger("nats").error("unseen")
    assert capsys.readouterr().err == ""


def test_a_warning_of_python_becomes_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", JSON)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nways", stacklevel=1)
    assert "old" in json.loads(line(capsys))["event"]


def test_lines_go_to_whatever_standard_error_is_at_the_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_logging("info", TEXT)
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    logging.getLogger("worker.test").info("moved")
    assert "moved" in capsys.readouterr().out
