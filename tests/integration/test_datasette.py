"""Datasette beside a real worker. Skipped unless it is installed: scripts/setup datasette"""

import contextlib
import html
import json
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import others_environment
from tests.support.datasette import FOLDER, TITLES, UNIT
from tests.support.rows import Rows
from tests.support.waiting import eventually

Get = Callable[..., bytes]

INSTALLED = "/etc/projector/datasette"
COPIED = ("metadata.json", "plugins", "templates")

_FOLDER = str(Path(sys.executable).parent)
_COMMAND = shutil.which("datasette", path=_FOLDER) or shutil.which("datasette")
pytestmark = pytest.mark.skipif(
    _COMMAND is None, reason="Datasette is not installed; run scripts/setup datasette"
)


def command_of_the_unit(database: Path, port: int) -> list[str]:
    """Return the unit's command line, with this database, port and installation."""
    text = UNIT.read_text("utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    here = {
        "/opt/datasette/bin/datasette": str(_COMMAND),
        "/var/lib/projector/projector.db": str(database),
        **{f"{INSTALLED}/{name}": str(FOLDER / name) for name in COPIED},
        "8001": str(port),
    }
    return [here.get(word, word) for word in shlex.split(line.removeprefix("ExecStart="))]


@pytest.fixture
def get(rows: Rows, tmp_path: Path) -> Iterator[Get]:
    """Return a function that fetches a page of a running Datasette."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def fetch(path: str, **parameters: str) -> bytes:
        address = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(fetch("/"))
        return False

    log, command = tmp_path / "datasette.log", command_of_the_unit(rows.path, port)
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=others_environment())
    try:
        eventually(answers, 20, log.read_text)
        yield fetch
    finally:
        process.kill()
        process.wait()


def test_datasette_shows_what_the_worker_writes_and_does_not_block_it(
    deployment: Broker, rows: Rows, start_worker: StartWorker, get: Get
) -> None:
    def counts() -> dict[str, int]:
        parameters = {"_shape": "array", "pc_id": "pc-1"}
        pages = {name: get(f"/projector/{name}.json", **parameters) for name in TITLES}
        return {name: len(json.loads(page)) for name, page in pages.items()}

    worker = start_worker(rows, pulling=True)
    always = {"executions_by_status": 4, "row_counts": 3}
    assert counts() == {**dict.fromkeys(TITLES, 0), **always}
    deployment.publish_starts(events.start(pc_id=f"pc-{number}") for number in range(300))
    deployment.publish_starts([events.start(manifest_id="unknown", pc_id="pc-1")])
    deployment.publish(b"no start")
    eventually(deployment.is_acked, 10)
    rows.write(
        "UPDATE execution_results SET reaped = 1, finished_at = strftime('%Y-%m-%dT%H:%M:%f+00:00')"
        " WHERE pc_id = 'pc-7'"
    )
    two = dict.fromkeys(("runs_in_flight_by_job", "runs_of_pc"), 2)
    more = {"runs_in_flight": 300, "overdue_runs": 0, **always}
    expected = {**dict.fromkeys(TITLES, 1), **two, **more}
    assert counts() == expected
    for name in TITLES:
        assert TITLES[name].encode() in get(f"/projector/{name}")
    for table in ("execution_results", "executions", "rejected_events", "checkpoints"):
        get(f"/projector/{table}")
    # No reader is left that keeps the log from being reused.
    with contextlib.closing(sqlite3.connect(rows.path, timeout=5)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert worker.stop() == 0
    assert counts() == expected


def test_the_fleet_page_shows_runs_ends_reasons_and_rows_with_ages(get: Get, rows: Rows) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    old = (now - timedelta(hours=3)).isoformat()
    job = "<script>alert(1)</script>"
    run = {"request_id": "q", "pc_id": "p", "job_id": job, "started_at": old, "recorded_at": old}
    in_flight = {**run, "result_id": "1", "expires_at": old, "finished_at": None, "exit_code": None}
    rows.insert(
        "execution_results",
        [in_flight, {**in_flight, "result_id": "2", "finished_at": old, "exit_code": 0}],
    )
    page = get("/-/fleet").decode()
    for title in ("In flight by job", "Overdue", "Ended in the last day", "Rows of each table"):
        assert title in page
    assert html.escape(job) in page
    assert job not in page
    assert f'<time datetime="{old}" title="{old}">3 h ago</time>' in page
    assert '<progress value="1" max="1">' in page
    assert re.search(r"execution_results\s+</td>\s*<td>2\b", page)
    assert "None." in page  # no event is rejected
    assert f'title="{old}">3 h ago</time>' in get("/projector/execution_results").decode()


def test_a_query_of_the_fleet_page_that_fails_leaves_the_others(get: Get, rows: Rows) -> None:
    rows.write("ALTER TABLE rejected_events RENAME TO hidden")
    page = get("/-/fleet").decode()
    assert page.count("The query failed: no such table: rejected_events") == 2
    assert "In flight by job" in page


def test_datasette_accepts_no_sql_and_offers_no_download(get: Get) -> None:
    for path, parameters, codes in (
        ("/projector.json", {"sql": "SELECT 1"}, {403}),
        ("/projector.db", {}, {403}),
        ("/projector/execution_results.json", {"_where": "1 = 1"}, {403}),
        ("/projector/execution_results.json", {"_sort": "stdout"}, {400, 500}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            get(path, **parameters)
        refusal.value.close()
        assert refusal.value.code in codes
