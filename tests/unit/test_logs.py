import json
import logging
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.logs import restored_logging
from worker.logs import JSON, TEXT, Grouped, Repeats, set_up_logging

HOSTILE = "pc\n12:00:00 ERROR   worker.failed\r\u2028\x1b[31m\x00 x=y"
Capture = pytest.CaptureFixture[str]
logger = logging.getLogger("worker.test")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    with restored_logging():
        yield


def line(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    (only,) = err.splitlines()
    assert (out, err) == ("", only + "\n")
    return only


def log(form: str, **fields: Any) -> None:
    set_up_logging("info", form)
    logger.warning("event.rejected", extra=fields)


def test_a_json_line_holds_time_level_logger_event_and_fields(capsys: Capture) -> None:
    fields = {"stream_sequence": 7, "names": ["a", "b"], "more": {"x": 1}}
    record = logging.makeLogRecord({"name": "worker.test", "msg": "event.rejected", **fields})
    record.created, record.levelno, record.levelname = 1_779_278_400.25, logging.INFO, "INFO"
    set_up_logging("info", JSON)
    logger.handle(record)
    standard = {"level": "info", "logger": "worker.test", "event": "event.rejected"}
    expected = {"time": "2026-05-20T12:00:00.250+00:00", **standard, **fields}
    assert list(json.loads(line(capsys)).items()) == list(expected.items())


def test_a_json_line_holds_the_traceback_of_an_exception(capsys: Capture) -> None:
    set_up_logging("info", JSON)
    logger.error("worker.failed", exc_info=RuntimeError("a bug"))
    record = json.loads(line(capsys))
    assert record["level"] == "error"
    assert "RuntimeError: a bug" in record["exc_info"]


def test_a_text_line_holds_level_event_and_fields(capsys: Capture) -> None:
    log(TEXT, stream_sequence=7, names=["a", "b"], more={"x": 1, "y": 0}, z=0)
    expected = "WARNING event.rejected stream_sequence=7 names=a,b x=1 z=0"
    assert line(capsys).split()[1:] == expected.split()


def test_a_text_line_begins_with_date_and_time_in_utc(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    record = logging.makeLogRecord({"name": "worker.test", "msg": "event.rejected"})
    record.created, record.levelno, record.levelname = 1_779_278_400.25, logging.INFO, "INFO"
    set_up_logging("info", TEXT)
    logger.handle(record)
    monkeypatch.undo()
    time.tzset()
    assert line(capsys) == "2026-05-20T12:00:00Z INFO    event.rejected"


@pytest.mark.parametrize("form", [JSON, TEXT])
@pytest.mark.parametrize("is_journal", [True, False])
def test_lines_for_the_journal_begin_with_their_priority(form: str, is_journal: bool) -> None:
    program = (
        "import logging\n"
        "from worker.logs import set_up_logging\n"
        f"set_up_logging('debug', {form!r})\n"
        "for level in (10, 20, 30, 40, 50): logging.log(level, 'an.event')\n"
        "logging.error('a.bug', exc_info=ValueError('x'))\n"
    )
    reading, writing = os.pipe()
    status = os.fstat(writing)
    stream = f"{status.st_dev}:{status.st_ino if is_journal else 1}"
    with os.fdopen(reading) as read:
        subprocess.run(
            [sys.executable, "-c", program],
            stderr=writing,
            check=True,
            env={**os.environ, "JOURNAL_STREAM": stream},
        )
        os.close(writing)
        lines = read.read().splitlines()
    marks = [line[:3] for line in lines if re.match(r"<\d>", line)]
    assert len(marks) == (len(lines) if is_journal else 0)
    if is_journal:
        assert marks[:5] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
        assert set(marks[5:]) == {"<3>"}  # each line of a traceback


@pytest.mark.parametrize("name", [HOSTILE, "", "\ud800", "\u202e", "two words"], ids=ascii)
def test_hostile_text_stays_on_its_line_and_in_its_field(capsys: Capture, name: str) -> None:
    log(JSON, subject=name)
    assert json.loads(line(capsys))["subject"] == name
    log(TEXT, subject=name, names=[name], more={"x": name}, after=1)
    text, quoted = line(capsys), ascii(name)
    assert text.isprintable()
    assert text.endswith(f"  subject={quoted}  names={quoted}  x={quoted}  after=1")


def test_events_below_the_level_are_not_logged(capsys: Capture) -> None:
    for form in (JSON, TEXT):
        set_up_logging("critical", form)
        logger.error("unseen")
        logging.getLogger("nats").error("unseen")
    assert capsys.readouterr().err == ""


def test_libraries_log_nothing_below_warning_even_at_level_debug(capsys: Capture) -> None:
    set_up_logging("debug", TEXT)
    for name in ("nats", "nats.aio.client", "asyncio", "yoyo", "yoyo.migrations"):
        logging.getLogger(name).info("unseen")
    logger.debug("seen")
    assert line(capsys).split()[1:] == ["DEBUG", "seen"]


def test_a_python_warning_becomes_one_json_line(capsys: Capture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        set_up_logging("info", JSON)
        warnings.warn("old\nways", stacklevel=1)
    assert "old" in json.loads(line(capsys))["event"]


def test_logs_follow_a_replaced_stderr(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_logging("info", TEXT)
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    logger.info("moved")
    assert "moved" in capsys.readouterr().out


def test_a_repeated_event_is_due_once_per_interval_and_key() -> None:
    repeats = Repeats(3600)
    assert [repeats.due(key) for key in ("a", "a", "b", "a")] == [True, False, True, False]


def test_events_of_a_key_are_logged_at_once_and_then_counted_until_their_time() -> None:
    grouped = Grouped(3600)
    grouped.add("a", 2, {"number": 1})
    grouped.add("b", 1, {"number": 2})
    assert grouped.due() == [(2, {"number": 1}), (1, {"number": 2})]
    for number in (3, 4):
        grouped.add("a", 5, {"number": number})
        assert grouped.due() == []
    assert grouped.due(at_end=True) == [(10, {"number": 3})]
    assert grouped.due(at_end=True) == []
    many = Grouped(3600, most=2)
    for key in "abcd":
        many.add(key, 1, {"key": key})
    assert many.due() == [(1, {"key": "a"}), (1, {"key": "b"}), (2, {"key": "c"})]
    many.add("e", 1, {})
    assert many.due() == []
    at_once = Grouped(0)
    for _ in range(2):
        at_once.add("a", 1, {})
        assert at_once.due() == [(1, {})]
