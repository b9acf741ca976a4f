"""The types of the shared fixtures, which the tests of this folder import from here."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support.commands import Done, run_projector
from tests.support.endpoints import NotifySocket
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows

__all__ = ["MakeServer", "Projector", "RunUntilIdle", "StartWorker"]

Projector = Callable[..., Done]


@pytest.fixture
def projector(rows: Rows, server: NatsServer, tmp_path: Path) -> Projector:
    """Return a function that runs a command on the test's database and the session's server.

    Without `results` it projects starts alone, as the workers of the tests do.
    """
    places = {"PROJECTOR_DATABASE": rows.url, "PROJECTOR_NATS_URL": server.url}

    def run(*arguments: object, results: bool = False, **more: Any) -> Done:
        narrowed = {} if results else {"PROJECTOR_PROJECTION": "starts"}
        return run_projector(*arguments, cwd=tmp_path, **{**places, **narrowed, **more})

    return run


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    with closing(NotifySocket(str(tmp_path / "notify"))) as listening:
        yield listening
