"""The standard streams of the process, whatever they are connected to.

Python has no object for a closed one, and the next file or socket would get its number. An error of
standard output ends a command; one of standard error is ignored, because the log goes there.
"""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper

from worker.errors import OutputError


class _Output(FileIO):
    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError("standard output cannot be written") from error


class _Errors(FileIO):
    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def set_up_streams() -> None:
    """Replace the streams of the process; characters that their encoding lacks are escaped."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return  # those of a test
    # In place of a closed output, a file to read from: writing to it fails as well.
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        _reserve(number, mode)
    sys.stdin = sys.stdin or TextIOWrapper(FileIO(0, closefd=False))
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.__stdout__)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.__stderr__)


def discard_output() -> None:
    """Discard what could not be written; at its end the process would try it again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _reserve(number: int, mode: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, mode)  # gets the lowest free number


def _text(raw: FileIO, replaced: TextIOWrapper | None) -> TextIOWrapper:
    encoding = replaced.encoding if replaced else None
    buffered = BufferedWriter(raw)
    line_buffering = raw.isatty() or raw.fileno() == 2
    return TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=line_buffering)
