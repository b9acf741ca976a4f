"""Commands without a broker: they show what the database holds, and end in time."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.conftest import Projector
from tests.support.rows import Rows
from worker.errors import BrokerError
from worker.jetstream.client import BrokerClient
from worker.settings import Settings

REFUSED = "the broker cannot be reached: ConnectionRefusedError: .* Connect call failed"


def seconds_to_fail(*urls: str, error: str) -> float:
    began = time.monotonic()
    with pytest.raises(BrokerError, match=error), BrokerClient(Settings(urls, "sqlite:///no.db")):
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("ports", [[1], [1, 2, 3]])
def test_a_command_fails_soon_if_every_server_refuses_the_connection(ports: list[int]) -> None:
    urls = [f"nats://127.0.0.1:{port}" for port in ports]
    assert seconds_to_fail(*urls, error=REFUSED) < 3


def test_a_command_fails_in_time_if_the_server_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        error = "the broker (cannot be reached: NoGreeting: .* needs --tls-first|is silent)"
        assert seconds_to_fail(url, error=error) < 12


def test_each_command_shows_what_it_can_and_its_exit_code(rows: Rows, projector: Projector) -> None:
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id, started_at, recorded_at)"
        " VALUES ('r1', 'r', 'p', '2026-05-20T12:00:00+00:00', '2026-05-20T12:00:00+00:00')"
    )
    commands = "status --json", "status", "check --json", "explain r1 --json", "verify", "rebuild"
    # In parallel, because each tries to connect for a second.
    with ThreadPoolExecutor(len(commands)) as pool:
        status, text, check, explain, verify, rebuild = pool.map(
            lambda one: projector(*one.split(), PROJECTOR_NATS_URL="nats://127.0.0.1:1"), commands
        )
    assert [one.code for one in (status, text, check, explain)] == [75, 75, 1, 0]
    assert verify.code == rebuild.code == 75
    assert status.document["database"]["in_flight"] == 1
    assert status.document["consumer"] is None
    assert "cannot be reached" in status.document["problems"][0]
    assert text.output.startswith("problem    the broker cannot be reached")
    levels = {finding["name"]: finding["level"] for finding in check.document["findings"]}
    worst = check.document["level"]
    assert (levels["database"], levels["broker"], worst) == ("ok", "error", "error")
    assert "cannot be reached" in explain.document["problems"][0]
    assert (
        explain.document["next"]
        == "the run has no deadline: it may be reaped a day after it was stored"
    )
