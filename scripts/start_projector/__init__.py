"""The command `projector`: it checks that the packages it imports are its own, then runs it.

The names `worker`, `repo` and `sql` are common, so another distribution or a folder on PYTHONPATH
may have packages of the same names. This package imports none of them.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import FrameType

DISTRIBUTION = "start-projector"
_PACKAGES = ("worker", "repo", "sql")
_EXIT_CONFIGURATION = 78  # as in worker.errors, which may be another distribution's


def main() -> int:
    """Run the command with the arguments of the process, and return the exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not ignored, as in the background of a shell
        signal.signal(signal.SIGINT, _end)
    problem = foreign_package()
    if problem:
        sys.stderr.write(f"Error: {problem}\n")
        return _EXIT_CONFIGURATION
    # Half a second of imports, in which Ctrl-C would print a traceback.
    from worker.cli.main import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, before)
    return run()


def foreign_package() -> str:
    """Return one line about the first package that is not this distribution's, or an empty text.

    Its own packages lie beside this one, in a checkout beside `scripts`. The first line of each
    names the distribution: pip lets several distributions write into one folder, where the last
    one's `__init__.py` stays.
    """
    folder = Path(__file__).parent.parent
    home = folder.parent if folder.name == "scripts" else folder
    for name in _PACKAGES:
        expected = (home / name / "__init__.py").resolve()
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != expected or not _names_distribution(expected):
            return _describe(name, found, expected)
    return ""


def _names_distribution(file: Path) -> bool:
    try:
        with file.open("rb") as source:
            return DISTRIBUTION.encode() in source.readline()
    except OSError:  # in an archive
        return True


def _describe(name: str, found: Path | None, expected: Path) -> str:
    problem = f"the package `{name}` comes from {found}{_owner(found)}, expected {expected}"
    if found is None:
        problem = f"the package `{name}` is missing, expected {expected}"
    elif found == expected:
        problem = f"the package `{name}` was overwritten: {found}{_owner(found)}"
    fix = f"install {DISTRIBUTION} into a virtual environment of its own, such as with pipx"
    if os.environ.get("PYTHONPATH"):
        fix = f"unset PYTHONPATH, or {fix}"
    return f"{problem}; {fix}"


def _owner(file: Path | None) -> str:
    """Return which other distribution has installed a file, if that is known."""
    from importlib import metadata  # noqa: PLC0415 (takes as long as all else here)

    for other in metadata.distributions():
        if other.metadata["Name"] != DISTRIBUTION and any(
            Path(str(other.locate_file(one))) == file for one in other.files or ()
        ):
            return f" of the distribution {other.metadata['Name']} {other.version}"
    return ""


def _end(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, b"Interrupted\n")
    finally:
        os._exit(130)  # worker.errors may not be loaded yet


if __name__ == "__main__":
    sys.exit(main())
