"""What a server says first, before any credentials are sent to it. Consumer thread only."""

import asyncio
import json
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import nats.errors

from worker.errors import BrokerError, ConfigurationError


class TlsNotOffered(nats.errors.Error):
    """TLS is required by the settings, and the server would go on in plaintext."""

    def __str__(self) -> str:
        return "TLS is required, but the server does not offer it"


class NoGreeting(ConnectionError):
    """No INFO came in the way that was expected; one of the two may begin with a TLS handshake."""


# What OpenSSL makes of a greeting in plaintext.
_NO_HANDSHAKE = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING")
_NO_INFO = "expecting INFO"
_NOT_FIRST = "the TLS handshake that --tls-first begins with failed: does the server begin with it?"
_FIRST = "the server does not greet; one that begins with a TLS handshake needs --tls-first"


def greeting_error(error: Exception, *, tls_first: bool) -> Exception:
    """Return what a connect failed with, or NoGreeting where only one side began with TLS.

    It is a matter of timing whether the handshake fails then, and how, or what comes after it.
    """
    if isinstance(error, TimeoutError) or _NO_INFO in str(error):
        return NoGreeting(_NOT_FIRST if tls_first else _FIRST)
    if tls_first and (
        isinstance(error, ConnectionResetError | ConnectionAbortedError)
        or (isinstance(error, ssl.SSLError) and error.reason in _NO_HANDSHAKE)
    ):
        return NoGreeting(_NOT_FIRST)
    return error


async def check_tls_is_offered(urls: Iterable[str], timeout: float) -> list[str]:
    """Return the URLs of the servers that demand TLS; those that do not greet are left out.

    Each gets `timeout` seconds. Raises ConfigurationError where a server greets without demanding
    TLS, and BrokerError where none greets. Only for a version of the library without
    `_connect_command`.
    """
    checked: list[str] = []
    problem: Exception | None = None
    for url in urls:
        try:
            async with asyncio.timeout(timeout):
                info = await _greeting(url)
        except (BrokerError, OSError, TimeoutError) as error:
            problem = error
            continue
        if not info.get("tls_required"):
            raise ConfigurationError(f"{TlsNotOffered()}: {url}")
        checked.append(url)
    if not checked:
        raise BrokerError("the broker cannot be reached") from problem
    return checked


async def _greeting(url: str) -> dict[str, Any]:
    """Return what a server sends first; raises BrokerError if that is not INFO with JSON."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        line = await reader.readline()
        if not line.startswith(b"INFO {"):
            raise ValueError("the first line is not INFO")
        info: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
    except ValueError as error:
        raise BrokerError(f"{url} does not greet as a NATS server") from error
    finally:
        writer.close()
    return info
