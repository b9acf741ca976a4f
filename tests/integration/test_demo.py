"""What a newcomer tries first: the demo, and the example events of the README."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def processes_that_name(folder: Path) -> list[bytes]:
    """Return the command lines that name a folder, such as those of servers and workers."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has just ended
            lines.append(file.read_bytes())
    return [line for line in lines if os.fsencode(folder) in line]


def test_the_demo_shows_its_tables_and_leaves_nothing_running(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "tmp", tmp_path / "demo"
    temporary.mkdir()
    command = (sys.executable, "-m", "tests.demo", "--pace", "0", "--folder", str(folder))
    ended = run(*command, TMPDIR=str(temporary), COLUMNS="120")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout[-4000:] + ended.stderr
    assert "\x1b" not in ended.stdout
    for shown in (
        "Runs in flight by job",
        "Given up, by job",
        "Rejected events",
        "running 12/3 → completed 13/3",
        "as if that time had gone by",
        "running 0/2 → running 1/1",
        "372 messages in EVENTS = 338 runs started + 27 duplicates + 7 rejected",
        "62 messages in RESULTS = 56 runs ended + 5 duplicates + 1 rejected",
        "339 rows = 282 in flight + 56 with their result + 1 given up",
        f"sqlite3 -box {folder}/projector.db < {ROOT}/sql/sqlite/queries/runs_in_flight_by_job.sql",
    ):
        assert shown in ended.stdout
    assert sorted(file.name for file in folder.iterdir()) == ["projector.db", "worker.log"]
    assert list(temporary.iterdir()) == []
    assert processes_that_name(tmp_path) == []


def test_the_commands_of_the_readme_project_the_example_events(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## Try your own event")[2]
    commands = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = "set -e\ntrap 'kill %1' EXIT\n" + commands
    script = script.replace("/tmp/try", str(tmp_path / "try")).replace("4222", port)
    url = f"nats://127.0.0.1:{port}"
    done = run("bash", "-c", script, PROJECTOR_NATS_URL=url, USER="tester")
    assert done.returncode == 0, done.stderr
    assert re.search("check-disk +lyon-04 +deploy-7 +run-1 ", done.stdout)
    assert "timeout 300 s + slack 150 s" in done.stdout
    assert re.search(r"finished at +2026-05-20T12:00:05\+00:00", done.stdout)
