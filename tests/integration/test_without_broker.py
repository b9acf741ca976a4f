"""Commands while the broker is away: what the database tells is told, and they end in time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.commands import Done, run_projector
from tests.support.rows import Rows

NOBODY = "nats://127.0.0.1:1"


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

    # Together, since each tries for some seconds.
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
    assert status.document["durable"] is None
    assert "cannot be reached" in status.document["problems"][0]
    assert text.output.startswith("problem: the broker cannot be reached")
    assert (check.code, check.document["level"]) == (1, "problem")
    levels = {finding["name"]: finding["level"] for finding in check.document["findings"]}
    assert (levels["database"], levels["broker"]) == ("ok", "problem")
    assert explain.code == 0
    assert "cannot be reached" in explain.document["problems"][0]
    assert explain.document["next"] == "it has no deadline: nothing but its result ends it"
    assert verify.code == rebuild.code == 75
