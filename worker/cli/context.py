"""How a command gets at the database: logs first, then the schema check, then a reader."""

import os
import sys
import threading
from typing import Any

from repo.reader import Reader
from repo.repository import Repository
from repo.retry import retry_policy
from repo.sqlite.database import Database
from worker.cli.build_settings import build_settings, chosen_database
from worker.logs import JSON, TEXT, set_up_logging
from worker.schema import check_schema
from worker.settings import Settings


def log_to_standard_error(options: dict[str, Any]) -> None:
    """Set up the log as --log-level and --log-format say, which leave the options."""
    level, form = options.pop("log_level"), options.pop("log_format")
    set_up_logging(level, form or (TEXT if sys.stderr.isatty() else JSON))


class Opened:
    """A database that a command was told to use; `retry_for` is in seconds."""

    def __init__(self, url: str | None, *, busy_timeout: float, retry_for: float) -> None:
        """Make sure that the database can be used.

        Raises SettingError where no database is named, ConfigurationError where migrations are
        pending, and a RepositoryError where the file cannot be read.
        """
        self._retry_for = retry_for
        self._database = Database(chosen_database(url), busy_timeout=busy_timeout)
        retry_policy(retry_for, threading.Event())(check_schema, self._database, apply=False)

    def reader(self) -> Reader:
        """Return a reader, to be closed by `with`; it cannot write."""
        return Reader(self._database, retry_for=self._retry_for)

    def repository(self) -> Repository:
        """Return a repository, to be closed by `with`; it connects at its first write."""
        return Repository(self._database, retry_for=self._retry_for, give_up=threading.Event())


def open_database(options: dict[str, Any]) -> Opened:
    """Set up the log, and open the database, of a command that needs no more than these options.

    Raises like `Opened`.
    """
    log_to_standard_error(options)
    return Opened(options.pop("database"), **options)


def chosen_settings(options: dict[str, Any]) -> Settings:
    """Set up the log, and return the settings, of a command that takes `broker_command`.

    Raises SettingError.
    """
    log_to_standard_error(options)
    return build_settings(options, os.environ)


def open_of(settings: Settings) -> Opened:
    """Open the database of these settings; raises like `Opened`."""
    return Opened(
        settings.database, busy_timeout=settings.busy_timeout, retry_for=settings.retry_for
    )
