"""The demo, as a newcomer runs it: `scripts/demo` does just this after its set-up."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_shows_its_tables_and_leaves_nothing_running(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "tmp", tmp_path / "demo"
    temporary.mkdir()

    ended = subprocess.run(
        [sys.executable, "-m", "tests.demo", "--pace", "0", "--folder", str(folder)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout[-4000:] + ended.stderr
    assert "\x1b" not in ended.stdout
    for shown in (
        "Runs in flight by job",
        "Executions by status",
        "Rejected events",
        "published 372 messages = 339 rows (324 in flight, 15 finished) + 26 duplicates",
        f"sqlite3 -box {folder}/projector.db < {ROOT}/sql/sqlite/queries/runs_in_flight_by_job.sql",
    ):
        assert shown in ended.stdout
    assert sorted(file.name for file in folder.iterdir()) == ["projector.db", "worker.log"]
    assert list(temporary.iterdir()) == []
    assert _processes_that_name(tmp_path) == []


def _processes_that_name(folder: Path) -> list[str]:
    """Return the command lines that name a folder: the server's and the workers' do."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(folder) in line:
            found.append(line)
    return found
