"""What a check of the database, or of anything else, found."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from repo.errors import RepositoryError


class Level(IntEnum):
    """How bad a finding is. The values are the exit codes of monitoring plugins."""

    OK = 0
    WARNING = 1
    ERROR = 2


class Finding(NamedTuple):
    """What was checked, and the result in words."""

    name: str
    level: Level
    text: str


def attempt(name: str, look: Callable[[], tuple[Level, str]]) -> Finding:
    """Return what `look` finds; its RepositoryError is a finding as well."""
    try:
        return Finding(name, *look())
    except RepositoryError as error:
        return failed(name, error)


def failed(name: str, error: RepositoryError) -> Finding:
    """Return the finding that something could not be checked, or is wrong."""
    return Finding(name, Level.ERROR, f"{error.summary}: {error}")
