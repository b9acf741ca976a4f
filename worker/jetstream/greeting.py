"""What a server says first, before any credentials are sent to it. Consumer thread only."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import nats.errors

from worker.errors import BrokerError, ConfigurationError


class TlsNotOffered(nats.errors.Error):
    """TLS is required by the settings, and the server would go on in plaintext."""

    def __str__(self) -> str:
        return "TLS is required, but the server does not offer it"


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
