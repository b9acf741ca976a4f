"""The Pythons of this machine, each with this package in an environment of its own."""

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.process import BenchFailed
from tests.demo.process import ROOT

VERSIONS = ("3.11", "3.12", "3.13")
_PYENV = Path("/root/.pyenv/versions")
_READY = ".ready"


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that can run the worker."""

    version: str
    executable: Path


def installed(version: str) -> Path | None:
    """Return the interpreter of a version such as `3.12`, if it is there and runs."""
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted(_PYENV.glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in candidates:
        told = subprocess.run(
            [candidate, "-I", "-c", "import ensurepip, platform as p; print(p.python_version())"],
            capture_output=True,
            text=True,
            check=False,
        )
        # What stands on the PATH may be a wrapper around nothing.
        if told.returncode == 0 and told.stdout.startswith(f"{version}."):
            return candidate
    return None


def prepare(version: str, folder: Path) -> Python | None:
    """Return a Python with this package, in an environment that is made now if it is not there.

    The one that runs this is taken as it is. Raises BenchFailed where the package does not install.
    """
    if platform.python_version().startswith(f"{version}."):
        return Python(version, Path(sys.executable))
    interpreter = installed(version)
    if interpreter is None:
        return None
    environment = folder / version
    python = environment / "bin" / "python"
    ready, wanted = environment / _READY, (ROOT / "setup.py").read_text()
    if not ready.exists() or ready.read_text() != wanted:
        shutil.rmtree(environment, ignore_errors=True)
        _run([str(interpreter), "-I", "-m", "venv", str(environment)])
        _run([str(python), "-I", "-m", "pip", "install", "--quiet", "-e", str(ROOT)])
        ready.write_text(wanted)
    return Python(version, python)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise BenchFailed(f"{command!r} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
