"""The machine and the versions: no number means anything without them."""

import os
import platform
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.support.nats_server import find_nats_server

_PACKAGES = ("start-projector", "nats-py", "faststream", "matplotlib")


def machine() -> dict[str, object]:
    """Return processor, cores, memory in GiB, system, and how busy it was before it began."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 1024**3, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    server = subprocess.run(
        [find_nats_server(), "--version"], capture_output=True, text=True, check=True
    )
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "nats-server": server.stdout.strip().removeprefix("nats-server: "),
        **{package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
