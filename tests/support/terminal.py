"""Commands on a terminal of 80 columns, in a process of their own."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.rows import Rows
from tests.support.worker_process import PROJECTOR, clean_environment

_BOUND = 30.0
_COLUMNS, _LINES = 80, 24
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command whose three standard streams are a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], leader: int) -> None:
        self._process = process
        self._leader = leader
        self._bytes = b""

    @property
    def text(self) -> str:
        """What was printed, with its escape sequences."""
        return self._bytes.decode("utf-8", "replace").replace("\r\n", "\n")

    @property
    def plain(self) -> str:
        """What was printed, without escape sequences."""
        return _ESCAPE.sub("", self.text)

    def wait_for(self, is_shown: Callable[[str], bool]) -> None:
        """Read until `is_shown` accepts the plain text."""
        deadline = time.monotonic() + _BOUND
        while not is_shown(self.plain):
            assert time.monotonic() < deadline, self.text
            self._read(0.1)

    def clear(self) -> None:
        """Forget what was printed."""
        self._bytes = b""

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._leader, text.encode())

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        self._process.send_signal(signal.SIGINT)

    def exit_code(self) -> int:
        """Read until the command has ended, and return its exit code."""
        deadline = time.monotonic() + _BOUND
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.1)
        while self._read(0):
            pass
        return self._process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._leader], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # nothing has the terminal open any more
            self._bytes += (more := os.read(self._leader, 65_536))
            return bool(more)
        return False


@contextmanager
def on_terminal(*arguments: object, database: Rows, **environment: str) -> Iterator[Terminal]:
    """Run `projector` on a terminal, for a database; at the end it is killed if it still runs."""
    leader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    size = {"TERM": "xterm-256color", "COLUMNS": str(_COLUMNS), "LINES": str(_LINES)}
    process = subprocess.Popen(
        [PROJECTOR, *map(str, arguments)],
        cwd=database.path.parent,
        env=clean_environment(PROJECTOR_DATABASE=database.url, **size, **environment),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        yield Terminal(process, leader)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def printed(*arguments: object, database: Rows, **environment: str) -> Terminal:
    """Run `projector` on a terminal of 80 columns to its end."""
    with on_terminal(*arguments, database=database, **environment) as terminal:
        assert terminal.exit_code() == 0, terminal.text
        return terminal
