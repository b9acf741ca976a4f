"""A migrated database for each test, copied from one that is made once."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo import Connection
from tests.repo.postgresql import PostgresDb
from tests.repo.rows import Db
from tests.support.postgresql import cluster


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    Db(path).database.migrate()
    assert not path.with_name("template.db-wal").exists()  # else a copy of the file lacks pages
    return path


@pytest.fixture
def db(engine: str, template: Path, tmp_path: Path) -> Iterator[Db]:
    if engine == "sqlite":
        with Db(Path(shutil.copyfile(template, tmp_path / "projector.db"))) as db:
            yield db
        return
    server = cluster()
    name = server.create_database()
    with PostgresDb(server, name) as db:
        yield db
    server.drop_database(name)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Db]:
    """A database whose file does not exist yet."""
    with Db(tmp_path / "x.db") as db:
        yield db


@pytest.fixture
def connection(db: Db) -> Iterator[Connection]:
    with closing(db.database.connect()) as connection:
        yield connection


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Db]:
    """A database that the fleet's own program created and owns."""
    with Db(tmp_path / "fleet.db") as db:
        with closing(sqlite3.connect(db.path)) as connection:
            connection.executescript((Path(__file__).parent / "fleet.sql").read_text("utf-8"))
        yield db
