"""The command `projector`, also as `python -m worker`."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command with the arguments of the process, and return the exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not ignored, as in the background of a shell
        signal.signal(signal.SIGINT, _end)
    # Half a second of imports, in which Ctrl-C would print a traceback.
    from worker.cli.main import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, before)
    return run()


def _end(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, b"Interrupted\n")
    finally:
        os._exit(130)  # worker.errors may not be loaded yet


if __name__ == "__main__":
    sys.exit(main())
