"""The connection to the broker: options, and everything that the client library reports.

Consumer thread only. The library reports most causes through callbacks (denied permissions, refused
credentials, a server that closes for good); they end up in one place here.
"""

import asyncio
import contextlib
import json
import logging
import ssl
import time
from typing import Any

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription

from worker.codec.timestamps import parse_instant
from worker.errors import BrokerError, ConfigurationError, SettingError, describe
from worker.jetstream import subjects
from worker.jetstream.greeting import TlsNotOffered, check_tls_is_offered, greeting_error
from worker.jetstream.link import Link
from worker.jetstream.tasks import cancel
from worker.jetstream.wire import WireClient
from worker.logs import Repeats
from worker.settings import Credentials, Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

API = subjects.API
API_TIMEOUT = 5.0
CONNECT_TIMEOUT = 5.0
CLOSE_TIMEOUT = 1.0
_RECONNECT_WAIT = 1
_FOR_EVER = -1
_FOR_EVER_SECONDS = float("inf")
# The answers show that the broker is there; without any for so long, the connection is given up.
_PING_INTERVAL = 1
_MOST_PINGS = 14
_LONGEST_RECONNECT = 30.0
_TICK = 0.5
_HANGS_UP_WITHIN = 2.0
_REPEAT_WARNING_AFTER = 15.0
_HOOKS = ("_connect_command", "_setup_nkeys_connect")
_LOGIN_REFUSED = "authorization violation"


class SecretUnreadable(nats.errors.Error):
    """The file of a secret or a certificate cannot be used now; it may be being replaced."""


class Connection(WireClient):
    """A connection that keeps what the library reports, and lets tasks wait for it.

    `disturbed` is set whenever the state of the connection may have changed; `presence_denied_at`
    is when the user was last denied to announce the worker (monotonic seconds), `notices_denied_at`
    to listen for changes of a bucket.

    Secrets and certificates are read at every connect and reconnect.

    Some private methods of the library are overridden or called; tests/unit/test_connection.py
    compares each with the library's own. In a version without them `_connect_command` is replaced
    by a check before each connect.
    """

    def __init__(self, settings: Settings, supervisor: Supervisor, status: WorkerStatus) -> None:
        super().__init__()
        self.link = Link()
        self.disturbed = asyncio.Event()
        self.reconnections = 0
        self.presence_denied_at = self.notices_denied_at = float("-inf")
        self._settings = settings
        self._tls_required = settings.tls.required
        self._supervisor = supervisor
        self._worker_status = status
        self.clock = status.health.broker_clock
        self._repeats = Repeats(_REPEAT_WARNING_AFTER)
        self._was_connected = False
        self._closing = False
        self._disconnected_at: float | None = None
        self._problem: tuple[float, str] = (0.0, "")
        self._spellings = subjects.Spellings()

    # --- reported by the library ---

    async def on_error(self, error: Exception) -> None:
        """Take an error that the library met in the background."""
        if not self._was_connected:
            error = greeting_error(error, tls_first=self._settings.tls.first)
        if isinstance(error, TlsNotOffered) and not self._was_connected:
            self._supervisor.fail(ConfigurationError(str(error)))
        elif subjects.PRESENCE_DENIED.search(str(error)):
            # Nothing else needs this permission, so it explains no other problem.
            self.presence_denied_at = time.monotonic()
            if self._repeats.due(subjects.PRESENCE_DENIED.pattern):
                log.warning("presence.denied", extra={"error": describe(error)})
        elif subjects.NOTICES_DENIED.search(str(error)):
            self.notices_denied_at = time.monotonic()
            if self._repeats.due(subjects.NOTICES_DENIED.pattern):
                log.warning("manifests.not_announced", extra={"error": describe(error)})
        elif isinstance(error, nats.errors.Error | OSError | TimeoutError):
            self._warn(self._described(error))
        else:  # a bug, most likely in a callback of ours: no reconnect would repair it
            self._supervisor.fail(error)
        self.disturbed.set()

    def heard(self) -> None:
        """Take note that the server has sent something."""
        # On a slow link the answers to pings come behind data: anything shows that it is alive.
        self._pings_outstanding = 0
        self.link.heard()
        self._worker_status.health.broker_heard()

    async def on_disconnected(self) -> None:
        self._disconnected_at = time.monotonic()
        if not self._closing:
            log.warning("broker.disconnected")
            self._worker_status.disconnected()
        self.disturbed.set()

    async def on_reconnected(self) -> None:
        """Record that the connection is back; every pull has to be started again."""
        self._disconnected_at = None
        self.link.reset()
        self.reconnections += 1
        self._worker_status.counters.add(reconnects=1)
        self._worker_status.logged_in()
        log.info("broker.reconnected", extra={"server": self.server()})
        self.disturbed.set()

    async def on_closed(self) -> None:
        self.disturbed.set()

    # --- for the tasks of the session ---

    def check(self) -> None:
        """Raise BrokerError if only a new connection can help."""
        if self.is_closed:
            raise BrokerError("the connection was closed for good") from self.last_error
        since = self._disconnected_at
        # A reconnect can hang with unsent data on a frozen socket.
        if since is not None and time.monotonic() - since > _LONGEST_RECONNECT:
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
        version = self.connected_server_version
        text = f"{version.major}.{version.minor}.{version.patch}"
        return f"{text}-{version.prerelease}" if version.prerelease else text

    @property
    def domain(self) -> str:
        """The JetStream domain that requests go to; empty if the server does not say its own."""
        return self._settings.js_domain or str(self._server_info.get("domain", ""))

    @property
    def other_domain(self) -> str | None:
        """The JetStream domain that requests must name, or None for the server's own."""
        own, chosen = self._server_info.get("domain"), self._settings.js_domain
        return None if chosen == own else chosen

    async def ask(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the JetStream API answers, error answers included.

        Without the library's objects, which cost more than the question. Raises the library's
        errors and TimeoutError where no answer comes, ValueError where it is not JSON.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        asked_at, wait = time.monotonic(), API_TIMEOUT
        question = asyncio.create_task(self.request(subject, payload, timeout=_FOR_EVER_SECONDS))
        try:
            while not (await asyncio.wait({question}, timeout=wait))[0]:
                if self.link.is_overdue(asked_at, API_TIMEOUT):
                    raise TimeoutError
                wait = _TICK
            parsed: dict[str, Any] = json.loads(question.result().data)
        finally:
            await cancel(question)
        self._note_time(parsed, is_new=".CONSUMER.CREATE." in subject)
        return parsed

    def _note_time(self, answer: dict[str, Any], *, is_new: bool) -> None:
        """Note the broker's clock where an answer shows it.

        Servers since 2.10 say when they answered. All say when a consumer was created: just now
        for one that `is_new`, since nothing creates one of these twice by the same name.
        """
        shown = answer.get("ts") or (answer.get("created") if is_new else None)
        if shown is not None:
            with contextlib.suppress(ValueError):
                self.clock.set(parse_instant(shown))

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish; what is for the JetStream API goes to that of the domain."""
        subject = subjects.in_domain(subject, self.other_domain)
        self._spellings.note(subject)
        await super().publish(subject, payload, reply, headers)

    async def subscribe(self, subject: str, *args: Any, **options: Any) -> Subscription:
        """Subscribe as the library does."""
        self._spellings.note(subject)
        return await super().subscribe(subject, *args, **options)

    # --- causes ---

    def problem_since(self, moment: float) -> str | None:
        """Return the last problem since a moment (monotonic seconds), or None.

        A request that is not permitted only times out; the reason comes as an error of its own.
        """
        when, problem = self._problem
        return problem if problem and when >= moment else None

    def explained(self, error: Exception, moment: float) -> str:
        """Return an error on one line, with what the library has reported since a moment."""
        problem = self.problem_since(moment)
        return f"{describe(error)} <- {problem}" if problem else describe(error)

    def forget_problem_since(self, moment: float) -> str | None:
        """Return the last problem since a moment, and let it explain nothing else."""
        problem = self.problem_since(moment)
        if problem:
            self._problem = (0.0, "")
        return problem

    def _described(self, error: Exception) -> str:
        problem = self._spellings.restored(describe(error))
        if _LOGIN_REFUSED in problem.lower() and self._settings.credentials.is_fixed:
            self._worker_status.secret_refused()
        now = time.monotonic()
        # A server that refuses something hangs up as well: the reason says more than that.
        if not (isinstance(error, OSError) and self.problem_since(now - _HANGS_UP_WITHIN)):
            self._problem = (now, problem)
        return problem

    def _warn(self, error: str) -> None:
        # The subject in a text differs from ack to ack; the problem does not.
        if self._repeats.due(subjects.without_subjects(error)):
            log.warning("broker.error", extra={"error": error})

    # --- overrides of private methods ---

    def _connect_command(self) -> bytes:
        # The library upgrades to TLS only where the server demands it, and sends the credentials in
        # plaintext otherwise. It calls this at every connect and reconnect, before they are sent.
        if self._tls_required and not self._server_info.get("tls_required"):
            raise TlsNotOffered
        if self._settings.credentials.files:
            self._renew_credentials()
        return super()._connect_command()

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        await super()._send_ping(self.link.ping(future))

    def _renew_credentials(self) -> None:
        try:
            options = _credentials(self._settings.credentials.renewed())
        except SettingError as error:
            raise SecretUnreadable(str(error)) from error
        self.options.update(options)
        self._user_credentials = options.get("user_credentials")
        self._nkeys_seed_str = options.get("nkeys_seed_str")
        if self._user_credentials or self._nkeys_seed_str:
            self._setup_nkeys_connect()

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        try:
            return self._settings.tls.context() or super().ssl_context
        except SettingError as error:
            raise SecretUnreadable(str(error)) from error

    # --- the life of the connection ---

    async def open(self, *, briefly: bool) -> None:
        """Connect, trying every URL for a few seconds; raises BrokerError.

        `briefly` tries each URL twice at most. Afterwards the library reconnects by itself.
        """
        has_hook = all(
            hasattr(Client, name) for name in ("_connect_command", "_setup_nkeys_connect")
        )
        settings = self._settings
        try:
            credentials = settings.credentials.renewed()
        except SettingError as error:  # readable at the start, and being replaced now
            raise BrokerError(str(error)) from error
        urls = list(settings.nats_urls)
        if self._tls_required and not has_hook and not settings.tls.first:
            urls = await check_tls_is_offered(urls, CONNECT_TIMEOUT)
        options: dict[str, Any] = {
            "servers": urls,
            "name": "start-projector",
            "error_cb": self.on_error,
            "disconnected_cb": self.on_disconnected,
            "reconnected_cb": self.on_reconnected,
            "closed_cb": self.on_closed,
            "connect_timeout": 2,
            "max_reconnect_attempts": 1 if briefly else _FOR_EVER,
            "reconnect_time_wait": _RECONNECT_WAIT,
            "inbox_prefix": settings.inbox_prefix,
            "tls_handshake_first": settings.tls.first,
            "ping_interval": _PING_INTERVAL,
            "max_outstanding_pings": _MOST_PINGS,
            # Without the hook each connect is prepared above, so the library may not reconnect.
            "allow_reconnect": has_hook or not (self._tls_required or credentials.files),
            **_credentials(credentials),
        }
        # A refused certificate can hang the library's own connect for ever.
        async with asyncio.timeout(CONNECT_TIMEOUT + 2 * len(urls)):
            await self.connect(**options)
        self.options["max_reconnect_attempts"] = _FOR_EVER
        self._was_connected = True
        self._worker_status.logged_in()

    async def shut_down(self) -> None:
        """Close the connection in whatever state it is, within a bound."""
        self._closing = True
        self._worker_status.health.broker_lost()
        # The library's close can hang on a frozen peer, and can end in a cancellation of its own.
        # On a dead socket it raises whatever the transport does (TypeError on Python 3.12). None
        # of that matters to a connection that is given up.
        with contextlib.suppress(Exception):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self.close()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise


async def connect(
    settings: Settings, supervisor: Supervisor, status: WorkerStatus, *, briefly: bool = False
) -> Connection:
    """Return an open connection; raises BrokerError.

    The supervisor gets the errors that no retry can repair, also later ones.
    """
    connection = Connection(settings, supervisor, status)
    began = time.monotonic()
    try:
        await connection.open(briefly=briefly)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await connection.shut_down()
        problem = connection.problem_since(began)
        # When time runs out the library's own error says nothing; the last callback does.
        text = (
            f"the broker cannot be reached: {problem}" if problem else "no answer from the broker"
        )
        raise BrokerError(text) from (None if problem else error)
    except BaseException:  # cancelled by the stop
        await connection.shut_down()
        raise
    log.info(
        "broker.connected", extra={"server": connection.server(), "tls": settings.tls.required}
    )
    return connection


def _credentials(given: Credentials) -> dict[str, Any]:
    options: dict[str, Any] = {
        "token": given.token,
        "user": given.user,
        "password": given.password,
        "nkeys_seed_str": given.nkey_seed,
        "user_credentials": RawCredentials(given.creds) if given.creds is not None else None,
    }
    return {name: value for name, value in options.items() if value is not None}
