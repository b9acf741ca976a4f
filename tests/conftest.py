"""One nats-server for the session; a clean broker, a migrated database and workers for a test."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.worker_process import PROJECTOR, WorkerProcess
from worker.schema import migrate

StartWorker = Callable[..., WorkerProcess]
MakeServer = Callable[..., NatsServer]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The server of the session. A test that stops a server takes one from `make_server`."""
    started = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield started
    started.stop()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Return a function that prepares a server of the test's own, stopped at its end."""
    made: list[NatsServer] = []

    def make(config: str = "", *, jetstream: bool = True) -> NatsServer:
        folder = tmp_path / f"nats-{len(made) + 1}"
        made.append(NatsServer(folder, config=config, jetstream=jetstream))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "migrated.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def rows(tmp_path: Path, _migrated: Path) -> Rows:
    """A migrated database of the test's own."""
    return Rows(Path(shutil.copy(_migrated, tmp_path / "projector.db")))


@pytest.fixture
def broker(server: NatsServer) -> Iterator[Broker]:
    """The session's server, with nothing on it."""
    with Broker(server.url) as connected:
        connected.delete_everything()
        yield connected


@pytest.fixture
def start_worker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StartWorker]:
    """Return a function that starts workers, on the session's server unless `nats` names another.

    `command` takes the place of `projector`. Whatever still runs at the end of the test is killed.
    """
    started: list[WorkerProcess] = []

    def start(
        database: Rows | str,
        *options: str,
        nats: str | None = None,
        environment: Mapping[str, str] | None = None,
        log_format: str = "json",
        command: Sequence[str] = (),
    ) -> WorkerProcess:
        nats = nats or request.getfixturevalue("server").url
        url = database.url if isinstance(database, Rows) else database
        arguments = ["--database", url, "--log-format", log_format, *options]
        log = tmp_path / f"worker-{len(started) + 1}.log"
        started.append(
            WorkerProcess(
                log, ["--nats", str(nats), *arguments], environment, command or (PROJECTOR,)
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
