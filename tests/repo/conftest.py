"""A migrated database file for each test, copied from one that is made once."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from repo.repository import Repository
from repo.sqlite.database import Connection, Database
from tests.repo.rows import url
from worker.schema import migrate

OpenRepository = Callable[[Database], Repository]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(url(path))
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
            repository = Repository(database, retry_for=0.1, give_up=threading.Event())
            return stack.enter_context(repository)

        yield open_one


@pytest.fixture
def repository(database: Database, open_repository: OpenRepository) -> Repository:
    return open_repository(database)
