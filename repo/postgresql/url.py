"""Database URLs of this engine, read without the client library.

Its own messages about a URL repeat parts of it, which may be a password in the wrong place.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote

# The second one is what yoyo takes for this driver, so that yoyo.ini can serve both.
URL_PREFIXES = ("postgresql://", "postgresql+psycopg://")

# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS, without those that
# hold a secret or that this engine sets itself.
_PARAMETERS = (
    "application_name", "channel_binding", "connect_timeout", "dbname", "gssencmode", "host",
    "hostaddr", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
    "krbsrvname", "load_balance_hosts", "options", "passfile", "port", "require_auth",
    "requirepeer", "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert",
    "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation", "sslrootcert", "sslsni",
    "target_session_attrs", "tcp_user_timeout", "user",
)  # fmt: skip
_NUMBERS = (
    "connect_timeout", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
    "tcp_user_timeout",
)  # fmt: skip
_WORDS = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any", "read-write", "read-only", "primary", "standby", "prefer-standby",
    ),
    "channel_binding": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "gssencmode": ("disable", "prefer", "require"),
}  # fmt: skip
_SECRET = ("password", "sslpassword")
_ELSEWHERE = "passwords belong in a passfile, or in PGPASSWORD or PGSERVICEFILE, never in the URL"
_FORM = "expected postgresql://USER@HOST:PORT/DATABASE"
_LOCATION = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<hosts>[^/@]*)(?:/(?P<dbname>[^/]*))?", re.ASCII)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(\d*))?", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# What the engine needs to notice a dead server within half a minute; the URL may say otherwise.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "start-projector",
}


def parse_url(url: str) -> dict[str, str]:
    """Return the connection parameters that a URL names, completed by this engine's defaults.

    Raises ValueError, without repeating any part of the URL, for another form, an unknown
    parameter, and a password, which would be in the list of processes.
    """
    prefix = next((prefix for prefix in URL_PREFIXES if url.startswith(prefix)), None)
    if prefix is None:
        raise ValueError(_FORM)
    if _BAD_ESCAPE.search(url):
        raise ValueError("a percent sign must be followed by two hexadecimal digits")
    if not url.isprintable() or " " in url or "#" in url:
        raise ValueError("spaces, # and control characters must be percent-encoded")
    location, _, query = url.removeprefix(prefix).partition("?")
    given = dict(_of_location(location))
    for name, value in _of_query(query):
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = value
    hosts = given.get("host", given.get("hostaddr", ""))
    _check_ports(given.get("port", ""), hosts)
    if "," in hosts:
        given.setdefault("target_session_attrs", "primary")
    return _DEFAULTS | given


def _of_location(location: str) -> Iterator[tuple[str, str]]:
    found = _LOCATION.fullmatch(location)
    if found is None:
        raise ValueError(_FORM)
    user, hosts, dbname = found["user"], found["hosts"], found["dbname"]
    if user and ":" in user:
        raise ValueError(_ELSEWHERE)
    if user:
        yield "user", _decoded(user)
    if hosts:
        pairs = [_HOST.fullmatch(host) for host in hosts.split(",")]
        names = [pair[1].strip("[]") for pair in pairs if pair is not None]
        ports = [pair[2] or "" for pair in pairs if pair is not None]
        if len(names) < len(pairs):
            raise ValueError(_FORM)
        if any(names):
            yield "host", ",".join(map(_decoded, names))
        if any(ports):
            yield "port", ",".join(ports)
    if dbname:
        yield "dbname", _decoded(dbname)


def _check_ports(ports: str, hosts: str) -> None:
    """Raise ValueError for ports that libpq would take for a server that cannot be reached."""
    for port in filter(None, ports.split(",")):  # an empty one stands for the default
        if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
            raise ValueError("a port must be a number from 1 to 65535")
    if ports.count(",") not in (0, hosts.count(",")):
        raise ValueError("expected one port, or one for each host")


def _of_query(query: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if name in _SECRET:
            raise ValueError(_ELSEWHERE)
        if not equals or name not in _PARAMETERS:
            names = ", ".join(_PARAMETERS)
            raise ValueError(f"expected NAME=VALUE after the question mark, NAME one of {names}")
        if name in _NUMBERS and not re.fullmatch(r"[0-9]{1,9}", value):
            raise ValueError(f"{name} must be a whole number")
        if value not in _WORDS.get(name, (value,)):
            raise ValueError(f"{name} must be one of {', '.join(_WORDS[name])}")
        yield name, _decoded(value)


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise ValueError("a percent-encoded part is not UTF-8 text")
    return decoded
