"""A connection to the broker for a command: one thread, no worker around it.

The loop runs only while something is asked for, so that a command reads as one sequence. That is
enough for the broker, which waits for minutes for an answer to its pings.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from worker.errors import BrokerError
from worker.jetstream.connection import Connection, close, connect
from worker.jetstream.tasks import cancel
from worker.logs import Repeats
from worker.settings import Settings
from worker.status.readiness import Readiness

_REPEAT_WARNING_AFTER = 60.0

_Result = TypeVar("_Result")


class BrokerClient:
    """Connected inside `with`, which raises BrokerError or ConfigurationError where it cannot be.

    Belongs to one thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fatal: asyncio.Future[None]
        self.connection: Connection

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        try:
            self._fatal = self._runner.get_loop().create_future()
            self.connection = self._runner.run(self._guarded(self._connect()))
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._runner.run(close(self.connection))
        finally:
            if self._fatal.done():
                self._fatal.exception()  # it was told, or came too late to matter
            self._runner.close()

    def do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns.

        Raises its error, with what the server refused meanwhile where that is the cause of it: a
        request that is not permitted only times out.
        """
        began = time.monotonic()
        try:
            return self._runner.run(self._guarded(work))
        except BrokerError as error:
            problem = self.connection.problem_since(began)
            if not problem:
                raise
            raise type(error)(f"{error}: {problem}") from error.__cause__

    async def _connect(self) -> Connection:
        repeats = Repeats(_REPEAT_WARNING_AFTER)
        return await connect(self._settings, self._end, repeats, Readiness(), briefly=True)

    def _end(self, error: BaseException) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _guarded(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns; what no retry can mend comes by a callback, and first."""
        doing = asyncio.create_task(work)
        try:
            parts: set[asyncio.Future[Any]] = {doing, self._fatal}
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if self._fatal.done():
                self._fatal.result()
            return doing.result()
        finally:
            await cancel(doing)
