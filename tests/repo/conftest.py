"""A migrated database file for each test, copied from one that is made once."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from repo import open_database
from repo.execution_results import START_WRITER
from repo.sqlite.connection import Connection
from repo.sqlite.database import Database
from tests.repo.rows import Repository, url

OpenRepository = Callable[[Database], Repository]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    open_database(url(path)).migrate()
    assert not path.with_name("template.db-wal").exists()  # else a copy of the file lacks pages
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(template, tmp_path / "projector.db"))


@pytest.fixture
def database(path: Path) -> Database:
    return Database(url(path), busy_timeout=0.02)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    yield connection
    connection.close()


@pytest.fixture
def open_repository() -> Iterator[OpenRepository]:
    with ExitStack() as stack:

        def open_one(database: Database) -> Repository:
            repository = Repository(
                database, START_WRITER, retry_for=0.1, give_up=threading.Event()
            )
            return stack.enter_context(repository)

        yield open_one


@pytest.fixture
def repository(database: Database, open_repository: OpenRepository) -> Repository:
    return open_repository(database)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A database that the fleet's own program created and owns."""
    path = tmp_path / "fleet.db"
    connection = sqlite3.connect(path)
    connection.executescript((Path(__file__).parent / "fleet.sql").read_text("utf-8"))
    connection.close()
    return path
