"""What a newcomer tries first: the demo, and the example events of the README."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo import command
from tests.demo.log_lines import shortened
from tests.support.waiting import eventually
from tests.support.worker_process import clean_environment

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 80


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={n: t for n, t in clean_environment(**environment).items() if n != "COLUMNS"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with so short a name that commands which name it fit a line."""
    path = Path(f"/tmp/{os.getpid():x}")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def processes_that_name(folder: Path) -> list[bytes]:
    """Return the command lines that name a folder, such as those of servers and workers."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has just ended
            lines.append(file.read_bytes())
    return [line for line in lines if os.fsencode(folder) in line]


def too_long(output: str) -> list[str]:
    return [line for line in output.splitlines() if len(line) > COLUMNS]


def test_the_demo_shows_its_tables_and_leaves_nothing_running(tmp_path: Path, folder: Path) -> None:
    demo = (sys.executable, "-m", "tests.demo", "--pace", "0", "--folder", str(folder))
    ended = run(*demo, TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout[-4000:] + ended.stderr
    assert "\x1b" not in ended.stdout
    assert too_long(ended.stdout) == []
    for shown in (
        "Runs in flight by job",
        "Given up, by job",
        "Rejected events",
        "→ completed 13/3",
        "as if that time had gone by",
        "counted them as failed: running 0/0 → running 0/2",
        "→ running 1/1",
        "372 messages in EVENTS = 338 runs started + 27 duplicates + 7 rejected",
        "62 messages in RESULTS = 56 runs ended + 5 duplicates + 1 rejected",
        "339 rows = 282 in flight + 56 with their result + 1 given up",
    ):
        assert shown in " ".join(ended.stdout.split())
    assert sorted(file.name for file in folder.iterdir()) == ["projector.db", "worker.log"]
    assert list(tmp_path.iterdir()) == []
    assert processes_that_name(tmp_path) == processes_that_name(folder) == []
    commands = re.findall(r"^  (scripts/projector .*--database .*)$", ended.stdout, re.MULTILINE)
    assert len(commands) == 3
    for line in commands:
        done = run("bash", "-c", line)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) > 1


# --- --stay ---------------------------------------------------------------------------------------


class Terminal:
    """A demo that stays, on a terminal of 80 columns."""

    def __init__(self, *options: str, temporary: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        environment = clean_environment(TMPDIR=str(temporary), TERM="xterm")
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "tests.demo", "--stay", *options],
            cwd=ROOT,
            env={name: text for name, text in environment.items() if name != "COLUMNS"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._printed = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        """What is on the screen so far, without colours."""
        return re.sub(r"\x1b\[[\d;]*m|\r", "", self._printed.decode())

    def lines_to_copy(self) -> list[str]:
        """Wait until the demo is up, and return the lines that it prints to copy."""
        eventually(lambda: "log goes to" in self.text, 20, lambda: self.text)
        return re.findall(
            r"^  ((?:\.venv|scripts/projector runs|http:)\S*.*)$", self.text, re.MULTILINE
        )

    def interrupt(self) -> int:
        """Type Ctrl-C, and return the exit code."""
        os.write(self._master, b"\x03")
        return self.process.wait(40)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(40)
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last process has closed the terminal
            while read := os.read(self._master, 1 << 16):
                self._printed += read


@pytest.fixture
def terminal(tmp_path: Path, folder: Path) -> Iterator[Terminal]:
    started = Terminal("--folder", str(folder), temporary=tmp_path)
    yield started
    started.close()


def test_the_three_lines_that_a_staying_demo_prints_work_until_ctrl_c(
    terminal: Terminal, tmp_path: Path, folder: Path
) -> None:
    publish, runs, page = terminal.lines_to_copy()
    published = run("bash", "-c", publish)
    assert published.returncode == 0, published.stderr
    (result_id,) = re.findall(r'"result_id": "([^"]+)"', published.stdout)
    eventually(lambda: result_id[:8] in run("bash", "-c", runs).stdout, 20)
    with urllib.request.urlopen(page, timeout=10) as answer:
        assert b"Runs in flight" in answer.read()
    assert terminal.interrupt() == 0
    assert too_long(terminal.text) == []
    assert processes_that_name(tmp_path) == processes_that_name(folder) == []
    assert list(tmp_path.iterdir()) == []


def test_runs_of_a_staying_demo_succeed_fail_and_become_overdue(
    terminal: Terminal, folder: Path
) -> None:
    terminal.lines_to_copy()
    database = ("--database", f"sqlite:///{folder}/projector.db")
    for kind in ("--ended", "--failed", "--overdue"):
        while (
            '"result_id"' not in run("scripts/projector", "runs", kind, "--json", *database).stdout
        ):
            assert terminal.process.poll() is None, terminal.text


def test_a_second_demo_uses_another_folder_while_the_first_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_FOLDER", tmp_path)
    with command.emptied(None) as first, command.emptied(None) as second:
        assert (first, second) == (tmp_path, tmp_path / "2")


def test_a_signal_while_a_process_starts_waits_until_the_demo_can_end_it() -> None:
    code = (
        "import os, signal\n"
        "from tests.demo.signals import Processes, Signals\n"
        "class Started:\n"
        "    def __enter__(self): os.kill(os.getpid(), signal.SIGINT); print('started')\n"
        "    def __exit__(self, *_): print('ended')\n"
        "with Processes(Signals(print, 60)) as processes:\n"
        "    processes.start(Started)\n"
        "    print('the signal was lost')\n"
    )
    done = run(sys.executable, "-c", code)
    expected = ["started", "", "  SIGINT: ending all processes", "ended"]
    assert (done.returncode, done.stdout.splitlines()) == (130, expected)


def test_a_line_of_the_log_shows_what_matters_and_is_cut_at_the_width() -> None:
    at = "2026-05-20T12:00:00Z"
    line = f"{at} WARNING event.rejected  stream_sequence=7  subject=a.b  error='not  \\'JSON\\''"
    assert shortened(line, 80) == r"12:00:00 WARNING event.rejected  not  \'JSON\'"
    assert shortened(f"{at} INFO    pull.started  stream=E  consumer=c  pending=1", 80) == (
        "12:00:00 pull.started  stream=E  pending=1"
    )
    assert shortened(f"{at} INFO    new.event  one=1  two=2", 22) == "12:00:00 new.event  o…"
    assert shortened("Traceback (most recent call last):", 80).startswith("Traceback")


# --- README ---------------------------------------------------------------------------------------


def test_the_commands_of_the_readme_publish_the_example_events(
    terminal: Terminal, folder: Path
) -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## Try your own event")[2]
    commands = "set -e\n" + "".join(
        re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    )
    publish, *_ = terminal.lines_to_copy()
    (url,) = re.findall(r"nats://\S+", publish)
    commands = re.sub(r"nats://127\.0\.0\.1:\d+", url, commands).replace("/.demo/", f"/{folder}/")
    done = run("bash", "-c", commands)
    assert done.returncode == 0, done.stderr
    assert re.search(r"check-disk +lyon-04 +in 2 min +run-1$", done.stdout, re.MULTILINE)
    assert "timeout 60 s + slack 120 s" in done.stdout
    assert re.search(r"finished at +2026-05-20T12:00:05\+00:00", done.stdout)
