"""Database URLs of PostgreSQL: what they name, and that no part of a wrong one is repeated."""

import sys
from pathlib import Path

import pytest

from repo import check_url, open_database
from repo.errors import DriverMissing
from repo.postgresql.url import parse_url
from tests.support.commands import run_projector

DEFAULTS = parse_url("postgresql://")


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("postgresql://", {}),
        ("postgresql:///fleet", {"dbname": "fleet"}),
        ("postgresql://db.example/fleet", {"host": "db.example", "dbname": "fleet"}),
        ("postgresql+psycopg://db:5433", {"host": "db", "port": "5433"}),
        (
            "postgresql://projector@[::1]:6432/fleet",
            {"user": "projector", "host": "::1", "port": "6432", "dbname": "fleet"},
        ),
        (
            "postgresql://a:5432,b:5433/fleet",
            {
                "host": "a,b",
                "port": "5432,5433",
                "dbname": "fleet",
                "target_session_attrs": "primary",
            },
        ),
        ("postgresql://a,b/", {"host": "a,b", "target_session_attrs": "primary"}),
        (
            "postgresql:///?host=a,b&target_session_attrs=read-write",
            {"host": "a,b", "target_session_attrs": "read-write"},
        ),
        (
            "postgresql:///fleet?host=%2Frun%2Fpostgresql&sslmode=verify-full",
            {"dbname": "fleet", "host": "/run/postgresql", "sslmode": "verify-full"},
        ),
        ("postgresql://?service=fleet", {"service": "fleet"}),
        (
            "postgresql://%C3%BC@db/a%2Fb?passfile=/etc/pass&connect_timeout=9",
            {"user": "ü", "host": "db", "dbname": "a/b", "passfile": "/etc/pass"}
            | {"connect_timeout": "9"},
        ),
    ],
)
def test_a_url_names_the_parameters_of_a_connection(url: str, parameters: dict[str, str]) -> None:
    assert parse_url(url) == DEFAULTS | parameters
    assert open_database(check_url(url)).url == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:s3cret@db/x", "never in the URL"),
        ("postgresql://db/x?password=s3cret", "never in the URL"),
        ("postgresql://db/x?sslpassword=s3cret", "never in the URL"),
        ("postgresql://me:s3cret%@db/x", "percent sign"),
        ("postgresql://db/x?host=%s3cret", "percent sign"),
        ("postgresql://me@s3cret@db/x", "expected postgresql://"),
        ("postgresql://db/x/s3cret", "expected postgresql://"),
        ("postgresql://db:s3cret/x", "expected postgresql://"),
        ("postgresql://db:1:s3cret/x", "expected postgresql://"),
        ("postgresql://[s3cret/x", "expected postgresql://"),
        ("postgresql://db:0/x", "1 to 65535"),
        ("postgresql://db:65536/x", "1 to 65535"),
        ("postgresql://db/x?s3cret", "expected NAME=VALUE"),
        ("postgresql://db/x?s3cret=1", "expected NAME=VALUE"),
        ("postgresql://db/x?host=s3cret", "host is given twice"),
        ("postgresql:///x?user=%FFs3cret", "not UTF-8"),
        ("postgresql:///x?user=%00s3cret", "not UTF-8"),
        ("postgresql://db/x?connect_timeout=s3cret", "whole number"),
        ("postgresql://db/x?sslmode=s3cret", "must be one of"),
        ("postgresql://db/x?target_session_attrs=s3cret", "must be one of"),
        ("postgresql://db/x?port=s3cret", "1 to 65535"),
        ("postgresql:///x?host=a,b,c&port=1,2", "one for each host"),
        ("postgresql://db/x y", "percent-encoded"),
        ("postgresql://db/x#s3cret", "percent-encoded"),
    ],
)
def test_a_wrong_url_is_refused_without_repeating_any_part_of_it(url: str, said: str) -> None:
    for take in (check_url, open_database):
        with pytest.raises(ValueError, match=said) as refused:
            take(url)
        assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/x?password=s3cret",
        "postgresql://s3cret:1:2/x",
        "postgres://db:s3cret/x",
        "postgresql://me:s3cret@db/x",
    ],
)
def test_no_option_repeats_a_wrong_url(url: str) -> None:
    done = run_projector("status", "--database", url, cwd=Path(__file__).parent)
    assert done.code == 64
    assert "s3cret" not in done.output + done.errors
    assert "--database" in done.errors


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("repo.postgresql.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DriverMissing, match=r"start-projector\[postgresql\]"):
        open_database("postgresql://db/x")
