"""A folder that this process may not look into, also where it is root's."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest


def forbid(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Refuse to see what is in a folder, as the system does for an ordinary user."""
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        if folder in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    patch.setattr(Path, "stat", refuse)
