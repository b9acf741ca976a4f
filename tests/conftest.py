"""One nats-server for a session; an empty broker, a migrated database and workers for each test."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from repo.statements import ENGINES
from tests.support.broker import Broker, Publisher
from tests.support.faulty_worker import faulty
from tests.support.nats_server import NatsServer
from tests.support.postgresql import PostgresRows, cluster
from tests.support.rows import Rows
from tests.support.worker_process import PROJECTOR, WorkerProcess

StartWorker = Callable[..., WorkerProcess]
RunUntilIdle = Callable[..., WorkerProcess]
MakeServer = Callable[..., NatsServer]
StartPublisher = Callable[..., Publisher]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mix the files: each process begins with some that wait and some that compute."""
    items.sort(key=lambda item: crc32(item.path.name.encode()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that are marked `every_engine` on each engine."""
    if metafunc.definition.get_closest_marker("every_engine") and "engine" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("sqlite_only")
        metafunc.parametrize("engine", ENGINES[:1] if only else ENGINES, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The engine of the test's database."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The session's server. A test that stops or configures a server uses `make_server`."""
    started = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield started
    started.stop()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Return a function that prepares servers for this test only."""
    made: list[NatsServer] = []

    def make(config: str = "", **more: Any) -> NatsServer:
        folder = tmp_path / f"nats-{len(made) + 1}"
        made.append(NatsServer(folder, config=config, **more))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = Rows(tmp_path_factory.mktemp("database") / "migrated.db")
    rows.migrate()
    return rows.path


@pytest.fixture
def rows(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rows]:
    """A migrated database for this test only."""
    path = tmp_path / "projector.db"
    if engine == "sqlite":
        yield Rows(Path(shutil.copy(request.getfixturevalue("_migrated"), path)))
        return
    postgresql = cluster()
    name = postgresql.create_database()
    yield PostgresRows(path, postgresql, name)
    postgresql.drop_database(name)


@pytest.fixture
def broker(server: NatsServer) -> Iterator[Broker]:
    """A connection to the session's server, which is empty."""
    with Broker(server.url) as connected:
        connected.delete_everything()
        yield connected


@pytest.fixture
def stream(broker: Broker) -> Broker:
    """The same connection; the server holds the stream without messages."""
    broker.make_stream()
    return broker


@pytest.fixture
def deployment(stream: Broker) -> Broker:
    """The same connection; the server also holds the manifest `job-1`, with a timeout of 360 s."""
    stream.make_bucket()
    stream.put_manifest("job-1", {"execute": {"timeout": "360s"}})
    return stream


@pytest.fixture
def start_worker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StartWorker]:
    """Return a function that starts workers, on the session's server unless `nats` names another.

    `fault` is a name and an argument of tests/support/faulty_worker.py, `command` replaces
    `projector`, and `pulling` waits until the worker pulls. Without `results` it projects starts
    alone. Workers that still run at the end of
    the test are killed.
    """
    started: list[WorkerProcess] = []

    def start(
        database: Rows | str,
        *options: str,
        nats: str | None = None,
        environment: Mapping[str, str] | None = None,
        log_format: str = "json",
        command: Sequence[str] = (PROJECTOR,),
        fault: tuple[str, object] | None = None,
        pulling: bool = False,
        results: bool = False,
    ) -> WorkerProcess:
        nats = nats or request.getfixturevalue("server").url
        url = database.url if isinstance(database, Rows) else database
        if fault:
            more, command = faulty(*fault)
            environment = {**(environment or {}), **more}
        if not results:
            options = ("--projection", "starts", *options)
        arguments = ["--nats", nats, "--database", url, "--log-format", log_format, *options]
        log = tmp_path / f"worker-{len(started) + 1}.log"
        started.append(WorkerProcess(log, arguments, environment, command))
        if pulling:
            started[-1].wait_for("pull.started")
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def start_publisher() -> Iterator[StartPublisher]:
    """Return a function that starts a Publisher; none publishes into the next test's stream."""
    started: list[Publisher] = []

    def start(url: str, **options: Any) -> Publisher:
        started.append(Publisher(url, **options))
        return started[-1]

    yield start
    for publisher in started:
        publisher.stop()


@pytest.fixture
def run_until_idle(start_worker: StartWorker) -> RunUntilIdle:
    """Return a function that runs a worker until everything is projected; it must exit with 0."""

    def run(database: Rows | str, *options: str, **more: Any) -> WorkerProcess:
        worker = start_worker(database, "--until-idle", *options, **more)
        assert worker.exit_code() == 0, worker.text
        return worker

    return run
