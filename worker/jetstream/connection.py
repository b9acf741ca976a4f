"""The connection to the broker: options, refusal of plaintext, and what the client reports.

Broker thread only. The client reports most causes through callbacks: permissions, refused
credentials, a server that closes for good. They end up in one place here.
"""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import RawCredentials

from worker.errors import BrokerError, ConfigurationError, SettingError, describe
from worker.jetstream.protocol import TlsNotOffered, Wire
from worker.logs import Repeats
from worker.settings import Settings
from worker.status.readiness import Readiness

log = logging.getLogger(__name__)

API_TIMEOUT = 5.0
CONNECT_TIMEOUT = 5.0
CLOSE_TIMEOUT = 1.0
_RECONNECT_WAIT = 1
_FOR_EVER = -1
_PING_INTERVAL = 5
_RECONNECTING_FOR_TOO_LONG = 30.0
_TICK = 0.5
_HANGS_UP_WITHIN = 2.0
_QUOTED = re.compile(r'"[^"]*"')


class Connection(Wire):
    """A connection that keeps what the client reports, and can wait for it.

    `disturbed` is set whenever the state of the connection may have changed.
    """

    def __init__(
        self,
        *,
        tls_required: bool,
        fatal: Callable[[BaseException], None],
        repeats: Repeats,
        readiness: Readiness,
    ) -> None:
        super().__init__(tls_required=tls_required)
        self.disturbed = asyncio.Event()
        self.reconnections = 0
        self.closing = False
        self.disconnected_at: float | None = None
        self._fatal = fatal
        self._was_connected = False
        self._repeats = repeats
        self._readiness = readiness
        self._problem: tuple[float, str] = (0.0, "")

    async def on_error(self, error: Exception) -> None:
        """Take an error that the library met in the background."""
        if isinstance(error, TlsNotOffered) and not self._was_connected:
            self._fatal(ConfigurationError(str(error)))
        elif isinstance(error, nats.errors.Error | OSError | TimeoutError):
            self._warn(self._described(error))
        else:  # a bug, of a callback of ours most likely: it must not be mistaken for weather
            self._fatal(error)
        self.disturbed.set()

    async def on_disconnected(self) -> None:
        """Note that the connection is lost for now."""
        self.disconnected_at = time.monotonic()
        if not self.closing:
            log.warning("broker.disconnected")
            self._readiness.not_ready("the broker is disconnected")
        self.disturbed.set()

    async def on_reconnected(self) -> None:
        """Note that the connection is back; all pulls have to be made anew."""
        self.disconnected_at = None
        self.reconnections += 1
        self._readiness.reconnections += 1
        log.info("broker.reconnected", extra={"server": self.server()})
        self.disturbed.set()

    async def on_closed(self) -> None:
        """Note that the library has given the connection up."""
        self.disturbed.set()

    def check(self) -> None:
        """Raise BrokerError if only a new connection can help."""
        if self.is_closed:
            raise BrokerError("the connection was closed for good") from self.last_error
        since = self.disconnected_at
        # A reconnect can hang with unsent data on a frozen socket.
        if since is not None and time.monotonic() - since > _RECONNECTING_FOR_TOO_LONG:
            raise BrokerError("reconnecting takes too long")

    async def usable(self) -> None:
        """Return when the connection is there; raises BrokerError if it will not come back."""
        while not self.is_connected:
            self.check()
            await self._disturbance()

    async def lost(self) -> None:
        """Return when the connection is lost, or was lost and is back: no answer comes then."""
        seen = self.reconnections
        while self.is_connected and self.reconnections == seen:
            await self._disturbance()

    async def _disturbance(self) -> None:
        self.disturbed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK):
                await self.disturbed.wait()

    def server(self) -> str:
        """Return the version of the server behind the connection."""
        return str(self._server_info.get("version", "unknown"))

    def connected(self) -> None:
        """Note that the first connect has worked."""
        self._was_connected = True

    async def ask(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the JetStream API answers, errors that it tells of included.

        Without the library's objects, whose making costs more than the question. Raises the
        library's errors and TimeoutError where there is no answer, ValueError where it is none.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        answer = await self.request(subject, payload, timeout=API_TIMEOUT)
        parsed: dict[str, Any] = json.loads(answer.data)
        return parsed

    def problem_since(self, moment: float) -> str:
        """Return what went wrong last since a moment (monotonic seconds), or nothing.

        A request that is not permitted only times out; the reason comes as an error of its own.
        """
        when, problem = self._problem
        return problem if when >= moment else ""

    def forgive(self, moment: float) -> str:
        """Return what went wrong last since a moment, and hold it against nothing else."""
        problem = self.problem_since(moment)
        if problem:
            self._problem = (0.0, "")
        return problem

    def _described(self, error: Exception) -> str:
        told = self.server_error
        known = bool(told) and told.lower() in str(error).lower()
        problem = f"the server says: {told}" if known else describe(error)
        now = time.monotonic()
        # A server that refuses hangs up as well: why says more than that.
        if not (isinstance(error, OSError) and self.problem_since(now - _HANGS_UP_WITHIN)):
            self._problem = (now, problem)
        return problem

    def _warn(self, error: str) -> None:
        # The subject in a text differs from ack to ack; what is wrong does not.
        if self._repeats.due(_QUOTED.sub("", error)):
            log.warning("broker.error", extra={"error": error})


async def connect(
    settings: Settings,
    fatal: Callable[[BaseException], None],
    repeats: Repeats,
    readiness: Readiness,
    *,
    briefly: bool = False,
) -> Connection:
    """Return a connection, trying every URL for a few seconds; raises BrokerError otherwise.

    `fatal` gets what no retry can mend, `repeats` keeps warnings from flooding the log. `briefly`
    tries each URL twice at the most, for somebody who waits. After the first connect the library
    reconnects by itself, for ever.
    """
    connection = Connection(
        tls_required=settings.tls.required, fatal=fatal, repeats=repeats, readiness=readiness
    )
    try:
        tls = settings.tls.context()
    except SettingError as error:  # the files were there at the start, and are being replaced
        raise BrokerError("the certificates cannot be read") from error
    options: dict[str, Any] = {
        "servers": list(settings.nats_urls),
        "name": "start-projector",
        "tls": tls,
        "error_cb": connection.on_error,
        "disconnected_cb": connection.on_disconnected,
        "reconnected_cb": connection.on_reconnected,
        "closed_cb": connection.on_closed,
        "connect_timeout": 2,
        "max_reconnect_attempts": 1 if briefly else _FOR_EVER,
        "reconnect_time_wait": _RECONNECT_WAIT,
        "ping_interval": _PING_INTERVAL,
        "max_outstanding_pings": 2,
        **_credentials(settings),
    }
    began = time.monotonic()
    try:
        # A refused certificate can hang the library's own connect for ever.
        async with asyncio.timeout(CONNECT_TIMEOUT + 2 * len(settings.nats_urls)):
            await connection.connect(**options)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await close(connection)
        problem = connection.problem_since(began)
        # With time running out the library's own error says nothing; the last callback does.
        text = f"the broker cannot be reached: {problem}" if problem else "the broker is silent"
        raise BrokerError(text) from (None if problem else error)
    except BaseException:  # cancelled by the stop
        await close(connection)
        raise
    connection.options["max_reconnect_attempts"] = _FOR_EVER
    connection.connected()
    log.info(
        "broker.connected", extra={"server": connection.server(), "tls": settings.tls.required}
    )
    return connection


async def close(connection: Connection) -> None:
    """Close a connection in whatever state it is, within a bound."""
    connection.closing = True
    # The library's close can hang on a frozen peer, and can end in a cancellation of its own.
    # On a dead socket it raises whatever the transport does, a TypeError on Python 3.12: nothing of
    # that matters to a connection that is given up.
    with contextlib.suppress(Exception):
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await connection.close()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise


def _credentials(settings: Settings) -> dict[str, Any]:
    given = settings.credentials
    options: dict[str, Any] = {
        "token": given.token,
        "user": given.user,
        "password": given.password,
        "nkeys_seed_str": given.nkey_seed,
        "user_credentials": RawCredentials(given.creds) if given.creds is not None else None,
    }
    return {name: value for name, value in options.items() if value is not None}
