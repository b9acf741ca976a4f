"""What a check of the database, or of anything else, found."""

from enum import IntEnum
from typing import NamedTuple


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
