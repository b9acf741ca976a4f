"""The real Datasette beside a real worker. Skipped unless it is there: scripts/setup datasette"""

import json
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import others_environment
from tests.support.datasette import METADATA, TITLES, UNIT
from tests.support.rows import Rows
from tests.support.waiting import eventually

_COMMAND = shutil.which("datasette", path=str(Path(sys.executable).parent)) or shutil.which(
    "datasette"
)
pytestmark = pytest.mark.skipif(
    _COMMAND is None, reason="no datasette here; scripts/setup datasette brings it"
)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def command_of_the_unit(database: Path, port: int) -> list[str]:
    """Return the unit's own command line, for this database, port and installation."""
    text = UNIT.read_text("utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    places = {
        "/opt/datasette/bin/datasette": str(_COMMAND),
        "/var/lib/projector/projector.db": str(database),
        "/etc/projector/datasette/metadata.json": str(METADATA),
        "8001": str(port),
    }
    return [places.get(word, word) for word in shlex.split(line.removeprefix("ExecStart="))]


class Pages:
    """Datasette's pages of one database."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> bytes:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}{path}?{query}", timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def answers(self) -> bool:
        try:
            return bool(self.get("/"))
        except OSError:
            return False

    def rows(self, name: str, **parameters: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.get(f"/projector/{name}.json", _shape="array", **parameters)
        )
        return found

    def refusal(self, path: str, **parameters: str) -> int:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            self.get(path, **parameters)
        refusal.value.close()
        return refusal.value.code


@pytest.fixture
def pages(rows: Rows, tmp_path: Path) -> Iterator[Pages]:
    port = free_port()
    with (tmp_path / "datasette.log").open("wb") as log:
        process = subprocess.Popen(
            command_of_the_unit(rows.path, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=others_environment(),
        )
    try:
        shown = Pages(port)
        eventually(shown.answers, 20, (tmp_path / "datasette.log").read_text)
        yield shown
    finally:
        process.kill()
        process.wait()


def test_datasette_shows_what_a_worker_beside_it_writes_and_holds_nothing_up(
    broker: Broker, rows: Rows, start_worker: StartWorker, pages: Pages
) -> None:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "360s"}})
    worker = start_worker(rows)
    worker.wait_for("pull.started")
    assert {name: len(pages.rows(name, pc_id="pc-1")) for name in TITLES} == {
        **dict.fromkeys(TITLES, 0),
        "executions_by_status": 4,
    }
    broker.publish_starts(events.start(pc_id=f"pc-{number}") for number in range(300))
    broker.publish_starts([events.start(manifest_id="unknown", pc_id="pc-1")])
    broker.publish(b"no start")
    eventually(broker.is_acked, 10)
    rows.write(
        "UPDATE execution_results SET reaped = 1, finished_at = strftime('%Y-%m-%dT%H:%M:%f+00:00')"
        " WHERE pc_id = 'pc-7'"
    )
    assert {name: len(pages.rows(name, pc_id="pc-1")) for name in TITLES} == {
        "runs_in_flight": 300,
        "runs_in_flight_by_job": 2,
        "overdue_runs": 0,
        "runs_without_deadline_by_job": 1,
        "reaped_runs_by_job": 1,
        "latest_rejected_events": 1,
        "runs_of_pc": 2,
        "executions_by_status": 4,
    }
    for name in TITLES:
        assert TITLES[name].encode() in pages.get(f"/projector/{name}")
    for table in ("execution_results", "executions", "rejected_events", "checkpoints"):
        pages.get(f"/projector/{table}")
    # Nobody who has asked keeps the log from starting over.
    with closing(sqlite3.connect(rows.path, timeout=5)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert worker.stop() == 0
    assert len(pages.rows("runs_of_pc", pc_id="pc-1")) == 2


def test_datasette_takes_no_sql_and_gives_no_file_away(rows: Rows, pages: Pages) -> None:
    assert pages.refusal("/projector.json", sql="SELECT 1") == 403
    assert pages.refusal("/projector.db") == 403
    assert pages.refusal("/projector/execution_results.json", _where="1 = 1") == 403
    assert pages.refusal("/projector/execution_results.json", _sort="stdout") >= 400
