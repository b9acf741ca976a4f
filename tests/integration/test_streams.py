"""Standard streams that are closed, full or no longer read."""

import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import StartWorker
from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.worker_process import PROJECTOR, clean_environment

FULL, CLOSED = ">/dev/full", ">&-"


def redirected(redirection: str) -> tuple[str, ...]:
    """Return the command `projector` with a redirection of a shell."""
    return ("sh", "-c", f'exec "$0" "$@" {redirection}', PROJECTOR)


def run(arguments: str, redirection: str, rows: Rows) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*redirected(redirection), *arguments.split()],
        env=clean_environment(PROJECTOR_DATABASE=rows.url, PROJECTOR_NATS_URL="127.0.0.1:1"),
        cwd=rows.path.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("redirection", ["<&-", CLOSED, "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_worker_projects_whatever_its_streams_are(
    stream: Broker, rows: Rows, start_worker: StartWorker, redirection: str
) -> None:
    stream.publish()
    worker = start_worker(rows, command=redirected(redirection))
    worker.until(lambda: rows.count() == 1 and stream.is_acked())
    assert worker.stop() == 0


@pytest.mark.parametrize("redirection", [FULL, CLOSED])
@pytest.mark.parametrize(
    "arguments",
    [
        "runs",
        "runs --json",
        "runs --by job",
        "config",
        "check",
        "sql",
        "--help",
        "--version",
    ],
)
def test_a_command_whose_output_cannot_be_written_says_so_on_one_line(
    rows: Rows, redirection: str, arguments: str
) -> None:
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id) VALUES ('r1', 'r', 'p')"
    )
    done = run(arguments, redirection, rows)
    reason = "No space left on device" if redirection == FULL else "Bad file descriptor"
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.startswith("Error: standard output cannot be written")
    assert done.stderr.endswith(f"{reason})\n")
    assert done.stderr.count("\n") == 1


def test_a_check_for_nagios_is_unknown_if_its_output_cannot_be_written(rows: Rows) -> None:
    assert run("check --nagios", FULL, rows).returncode == 3


def test_a_command_ends_quietly_if_its_output_is_no_longer_read(rows: Rows) -> None:
    done = run("sql", "2>errors | true", rows)
    assert (Path(rows.path.parent / "errors").read_text("utf-8"), done.stderr) == ("", "")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(rows: Rows, redirection: str) -> None:
    assert run("runs --no-such-option", redirection, rows).returncode == 64
    assert run("rejected discard --all", f"{redirection} <&-", rows).returncode == 64
