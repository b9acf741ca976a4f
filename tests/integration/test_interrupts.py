"""Ctrl-C: one line, exit code 130, and no partial result that passes for the whole."""

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import RunUntilIdle
from tests.support import events
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import PROJECTOR, clean_environment

MANY = 5_000

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(server: NatsServer, rows: Rows) -> Start:
    """Return a function that starts a command whose output nobody reads yet."""

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        given = {"PROJECTOR_DATABASE": rows.url, "PROJECTOR_NATS_URL": server.url}
        given["PROJECTOR_PROJECTION"] = "starts"
        return subprocess.Popen(
            [PROJECTOR, *arguments],
            env=clean_environment(**given, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def interrupt(process: subprocess.Popen[str]) -> str:
    """Interrupt a process, which must end as it should, and return the rest of its output."""
    output, errors = interrupted(process)
    assert errors == "Interrupted\n"
    return output


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Interrupt a process and return the rest of its output and of its errors."""
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    return output, errors


def test_an_interrupt_during_the_imports_is_one_line(start: Start, tmp_path: Path) -> None:
    slow = "import sys, time; print('importing', flush=True); time.sleep(60)"
    (tmp_path / "click.py").write_text(slow)
    process = start("--version", PYTHONPATH=str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    assert interrupt(process) == ""


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_interrupted_verify_says_first_how_much_it_compared(
    deployment: Broker,
    rows: Rows,
    run_until_idle: RunUntilIdle,
    start: Start,
    form: tuple[str, ...],
) -> None:
    deployment.publish_starts(events.start() for _ in range(MANY))
    run_until_idle(rows)
    rows.write("DELETE FROM execution_results")
    process = start("verify", *form)
    assert process.stdout is not None
    process.stdout.readline()
    # The rest fills the pipe, so it still runs.
    text = interrupt(process)
    after = rf"interrupted after \d+ of {MANY} events"
    if form:
        assert re.search(rf'"error": "{after}"\}}$', text)
    else:
        assert re.search(rf"^{after}\n\d+ missing$", text.strip(), re.MULTILINE)


def test_an_interrupted_rebuild_says_first_how_much_it_projected(
    deployment: Broker, rows: Rows, start: Start
) -> None:
    deployment.publish_starts(events.start() for _ in range(16 * MANY))
    process = start("rebuild")
    eventually(lambda: rows.count() > 0, 20)
    first, second = interrupt(process).splitlines()
    (done,) = re.findall(rf"^interrupted after (\d+) of {16 * MANY} events$", first)
    assert second.startswith(f"{done} messages, ")
    assert int(done) < 16 * MANY


def test_an_interrupted_command_for_rejected_events_says_first_how_many_it_handled(
    broker: Broker, rows: Rows, start: Start
) -> None:
    rows.write(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 2000)"
        " INSERT INTO rejected_events (stream, stream_sequence, recorded_at, subject, reason,"
        " rejected_at, payload) SELECT 'EVENTS', n, '2026-05-20T12:00:00+00:00', 's', 'r',"
        " '2026-05-20T12:00:00+00:00', 'not JSON' FROM numbers"
    )
    process = start("rejected", "discard", "--all", "--yes")
    assert process.stdout is not None
    process.stdout.readline()
    output, errors = interrupted(process)
    text = r"^interrupted after (\d+) of 2000 events\n\1 discarded\nInterrupted\n$"
    (done,) = re.findall(text, errors)
    assert output.count("\n") >= int(done) - 1
    assert rows.count("rejected_events") == 2_000 - int(done)
