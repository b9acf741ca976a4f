"""Commands while the broker is away: what the database tells is told, and they end in time."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.commands import Done, run_projector
from tests.support.rows import Rows
from worker.errors import BrokerError
from worker.jetstream.client import BrokerClient
from worker.settings import Settings

NOBODY = "nats://127.0.0.1:1"


def seconds_of_a_visit(*urls: str, told: str) -> float:
    began = time.monotonic()
    with pytest.raises(BrokerError, match=told), BrokerClient(Settings(urls, "sqlite:///no.db")):
        pass
    return time.monotonic() - began


def test_a_command_does_not_wait_long_for_brokers_that_refuse() -> None:
    refused = "the broker cannot be reached: ConnectionRefusedError: .* Connect call failed"
    assert seconds_of_a_visit(NOBODY, told=refused) < 3
    three = [f"nats://127.0.0.1:{port}" for port in (1, 2, 3)]
    assert seconds_of_a_visit(*three, told=refused) < 3


def test_a_command_does_not_wait_for_ever_for_a_silent_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        told = "the broker (cannot be reached: TimeoutError|is silent)"
        assert seconds_of_a_visit(url, told=told) < 12


def test_each_command_tells_what_it_can_and_ends_with_a_telling_code(
    rows: Rows, tmp_path: Path
) -> None:
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id, started_at, recorded_at)"
        " VALUES ('r1', 'r', 'p', '2026-05-20T12:00:00+00:00', '2026-05-20T12:00:00+00:00')"
    )

    def run(*arguments: str) -> Done:
        places = ("--database", rows.url, "--nats", NOBODY)
        return run_projector(*arguments, *places, cwd=tmp_path)

    # Together, since each tries for a second.
    commands = [
        ("status", "--json"),
        ("status",),
        ("check", "--json"),
        ("explain", "r1", "--json"),
        ("verify",),
        ("rebuild",),
    ]
    with ThreadPoolExecutor(len(commands)) as pool:
        status, text, check, explain, verify, rebuild = pool.map(lambda one: run(*one), commands)

    assert status.code == text.code == 75
    assert status.document["database"]["in_flight"] == 1
    assert status.document["consumer"] is None
    assert "cannot be reached" in status.document["problems"][0]
    assert text.output.startswith("problem: the broker cannot be reached")
    assert (check.code, check.document["level"]) == (1, "problem")
    levels = {finding["name"]: finding["level"] for finding in check.document["findings"]}
    assert (levels["database"], levels["broker"]) == ("ok", "problem")
    assert explain.code == 0
    assert "cannot be reached" in explain.document["problems"][0]
    assert explain.document["next"] == "the run has no deadline: only its result ends it"
    assert verify.code == rebuild.code == 75
