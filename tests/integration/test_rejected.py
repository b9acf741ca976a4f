"""`projector rejected` as a process, on a real file, with a real broker and beside real workers."""

import base64
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartPublisher
from tests.integration.conftest import MakeServer, Projector, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import Done
from tests.support.events import stored_text
from tests.support.nats_server import NatsServer
from tests.support.proxy import PlainServer
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually
from tests.support.worker_process import PROJECTOR, clean_environment

RECORDED_AT = "2026-05-20T12:00:01.000000001+00:00"
REJECTED_AT = "2026-05-20T12:00:02+00:00"
EVENT = {
    "stream": "EVENTS",
    "recorded_at": RECORDED_AT,
    "subject": "events.started.e.pc",
    "reason": "the reason at the time",
    "rejected_at": REJECTED_AT,
}
NOT_UTF8 = b"\xff\x00 not UTF-8 \x1b[31m"
HOSTILE = "events.\x1b]0;owned\x07.\x9b2J\u202e[red]x[/red]\\[link=x]\r\n"
NO_BROKER = {"PROJECTOR_NATS_URL": "nats://127.0.0.1:1"}
IMPATIENT = ("--busy-timeout", "50ms", "--retry-for", "300ms")

Rejected = Callable[..., Done]


@pytest.fixture
def rejected(projector: Projector) -> Rejected:
    return lambda *arguments, **environment: projector("rejected", *arguments, **environment)


def reject(rows: Rows, *payloads: bytes, first: int = 1, **changes: str) -> None:
    """Insert rejected events as a worker would, with stream sequences from `first`."""
    event = {**EVENT, **changes}
    rows.insert(
        "rejected_events",
        [
            {**event, "stream_sequence": sequence, "payload": one}
            for sequence, one in enumerate(payloads, first)
        ],
    )


def start(rows: Rows, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a command without waiting for its end."""
    command = [str(Path(sys.executable).with_name("projector")), "rejected", *arguments]
    return subprocess.Popen([*command, "--database", rows.url], cwd=rows.path.parent, **streams)


def ids(rows: Rows) -> list[int]:
    return [row["rejected_id"] for row in rows.rejected()]


def outcomes(done: Done) -> dict[int, str]:
    return {event["rejected_id"]: event["outcome"] for event in done.document["events"]}


def run_of(rows: Rows, result_id: str) -> Row:
    run = rows.run(result_id)
    assert run is not None
    return run


@pytest.mark.every_engine
def test_retry_writes_the_run_of_a_valid_event_once_and_keeps_an_invalid_event(
    rejected: Rejected, rows: Rows, deployment: Broker
) -> None:
    rows.write(
        "INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at,"
        " target_count) VALUES ('execution-1', 'job-1', '1', 'x', '2026-05-20T12:00:00+00:00', 1)"
    )
    reject(rows, events.payload(result_id="good"), NOT_UTF8)
    done = rejected("retry", 1, 2)
    reason = "not UTF-8: invalid start byte at byte 0"
    lines = ["1  written", f"2  rejected: {reason}", "1 written, 1 rejected"]
    assert (done.code, done.output.splitlines()) == (1, lines)
    run = run_of(rows, "good")
    assert (run["recorded_at"], run["finished_at"]) == (RECORDED_AT, None)
    assert run["started_at"] == stored_text(events.STARTED_AT)
    assert run["expires_at"] == stored_text("2026-05-20T12:00:01.000000001Z", plus=540)
    assert rows.query("SELECT status FROM executions") == [{"status": "running"}]
    (left,) = rows.rejected()
    assert (left["rejected_id"], left["payload"], left["reason"]) == (2, NOT_UTF8, reason)
    assert left["rejected_at"] == REJECTED_AT

    again = rejected("retry", 1, 2, 2, "--json")
    assert (again.code, outcomes(again)) == (1, {1: "unknown", 2: "rejected"})
    assert (rows.rejected(), rows.run("good")) == ([left], run)


def test_retry_without_matching_events_needs_no_broker(rejected: Rejected, rows: Rows) -> None:
    nothing = rejected("retry", "--all", **NO_BROKER)
    assert (nothing.code, nothing.output, nothing.errors) == (0, "0 written\n", "")
    unknown = rejected("retry", 7, **NO_BROKER)
    assert (unknown.code, unknown.output) == (1, "7  does not exist\n1 unknown\n")


def test_a_reason_is_matched_literally(rejected: Rejected, rows: Rows, deployment: Broker) -> None:
    reasons = ["100% off", "100 off", "a_b", "axb", "[bold]x", "x", "(100%)"]
    for number, reason in enumerate(reasons, 1):
        reject(rows, events.payload(result_id=f"r{number}"), first=number, reason=reason)
    found = rejected("list", "--reason", "100%", "--json").document["events"]
    assert [event["rejected_id"] for event in found] == [7, 1]
    for reason in ("100%", "a_b", "[bold]", "A"):
        assert rejected("retry", "--reason", reason).code == 0
    assert ids(rows) == [2, 4, 6]
    assert rows.result_ids() == ["r1", "r3", "r5", "r7"]


def test_retry_leaves_an_existing_run_unchanged_and_removes_the_event(
    rejected: Rejected, rows: Rows, deployment: Broker
) -> None:
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id, started_at, recorded_at,"
        " finished_at, exit_code, stdout) VALUES ('done', 'r', 'p', 's', 't', 'u', 7, 'hello')"
    )
    before = rows.run("done")
    twice = (events.payload(result_id="new", version=version) for version in ("1", "2"))
    reject(rows, events.payload(result_id="done"), *twice)
    done = rejected("retry", "--all", "--json")
    assert (done.code, rows.rejected(), rows.run("done")) == (0, [], before)
    assert run_of(rows, "new")["version"] == "1"
    assert done.document == {
        "events": [{"rejected_id": number, "outcome": "written"} for number in (1, 2, 3)],
        "written": 3,
        "runs_duplicate": 2,
        "objects_missing": 0,
        "rejected": 0,
        "unknown": 0,
    }


def test_retry_uses_the_stream_of_the_event_and_not_that_of_the_settings(
    rejected: Rejected, rows: Rows, deployment: Broker
) -> None:
    for stream in ("EVENTS", "OTHER", "EVENTS2"):
        reject(rows, events.payload(result_id=stream), b"still invalid", stream=stream)
    assert rejected("retry", "--all", PROJECTOR_STREAM="ELSEWHERE").code == 1
    assert rows.result_ids() == ["EVENTS", "EVENTS2", "OTHER"]
    left = [(row["stream"], row["stream_sequence"]) for row in rows.rejected()]
    assert left == [("EVENTS", 2), ("OTHER", 2), ("EVENTS2", 2)]


def test_retry_rejects_an_event_whose_recorded_at_is_not_in_stored_form(
    rejected: Rejected, rows: Rows, deployment: Broker
) -> None:
    for number, text in enumerate(["2026-05-20T12:00:01Z", "yesterday", ""], 1):
        reject(rows, events.payload(), first=number, recorded_at=text)
    done = rejected("retry", "--all", "--json")
    assert (done.code, set(outcomes(done).values())) == (1, {"rejected"})
    assert "2026-05-20T12:00:01+00:00" in done.output
    assert (ids(rows), rows.count()) == ([1, 2, 3], 0)


@pytest.mark.every_engine
def test_retry_handles_several_transactions_of_events_beside_a_busy_worker(
    rejected: Rejected,
    rows: Rows,
    deployment: Broker,
    start_worker: StartWorker,
    server: NatsServer,
    start_publisher: StartPublisher,
) -> None:
    worker = start_worker(rows, pulling=True)
    publisher = start_publisher(server.url)
    names = {n: f"again-{n:04}" for n in range(1300) if n % 13}
    payloads = (events.payload(result_id=names[n]) if n in names else b"no" for n in range(1300))
    reject(rows, *payloads, first=10**9)
    done = rejected("retry", "--all", "--json")
    published = publisher.stop()
    eventually(deployment.is_acked, 20, lambda: worker.text)
    assert worker.stop() == 0
    assert (done.code, done.document["written"], done.document["rejected"]) == (1, 1200, 100)
    assert rows.count("rejected_events") == 100
    assert set(rows.result_ids()) >= {*published, *names.values()}
    late = "SELECT 1 FROM execution_results WHERE result_id LIKE 'again%' AND expires_at IS NULL"
    assert rows.query(late) == []


def test_a_retry_of_an_event_that_a_worker_rejected_leaves_it_as_it_was(
    rejected: Rejected, rows: Rows, deployment: Broker, run_until_idle: RunUntilIdle
) -> None:
    deployment.publish(b"{}")
    run_until_idle(rows)
    before = rows.rejected()
    done = rejected("retry", "--all")
    assert (done.code, done.errors, rows.rejected()) == (1, "", before)


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("environment", "code", "text"),
    [({}, 78, "does not exist"), (NO_BROKER, 75, "cannot be reached")],
)
def test_retry_changes_nothing_without_manifests_unless_deadlines_are_declined(
    rejected: Rejected, rows: Rows, environment: dict[str, str], code: int, text: str
) -> None:
    reject(rows, events.payload(result_id="good"))
    failed = rejected("retry", 1, **environment)
    assert (failed.code, failed.output, ids(rows), rows.count()) == (code, "", [1], 0)
    assert text in failed.errors
    assert "pass --without-deadlines" in failed.errors
    assert rejected("retry", 1, "--without-deadlines", **environment).code == 0
    assert run_of(rows, "good")["expires_at"] is None


def test_retry_sends_no_credentials_in_plaintext_with_tls(rejected: Rejected, rows: Rows) -> None:
    reject(rows, events.payload())
    with PlainServer() as plain:
        url = f"tls://user:s3cret@127.0.0.1:{plain.port}"
        refused = rejected("retry", 1, PROJECTOR_NATS_URL=url)
    assert (refused.code, ids(rows)) == (78, [1])
    assert "TLS" in refused.errors
    assert "s3cret" not in refused.errors
    assert b"s3cret" not in plain.received


def test_retry_logs_in_to_a_broker(rejected: Rejected, rows: Rows, make_server: MakeServer) -> None:
    url = make_server("authorization { token: s3cret }").start().url
    with Broker(url, token="s3cret") as broker:
        broker.make_bucket()
        broker.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    reject(rows, events.payload(result_id="good"))
    without = rejected("retry", 1, PROJECTOR_NATS_URL=url)
    assert without.code == 75
    assert "Authorization" in without.errors
    assert rejected("retry", 1, PROJECTOR_NATS_URL=url, PROJECTOR_TOKEN="s3cret").code == 0
    assert run_of(rows, "good")["expires_at"] is not None


@pytest.mark.parametrize(
    "arguments",
    [("retry", 1, 2, "--without-deadlines"), ("discard", 1, 2), ("discard", "--all", "--yes")],
)
def test_a_locked_database_is_exit_code_75_and_no_event_is_lost(
    rejected: Rejected, rows: Rows, arguments: tuple[Any, ...]
) -> None:
    reject(rows, events.payload(), NOT_UTF8)
    before = rows.rejected()
    with rows.locked():
        plain = rejected(*arguments, *IMPATIENT)
        as_json = rejected(*arguments, *IMPATIENT, "--json")
        reading = rejected("list")
    assert (plain.code, as_json.code, reading.code) == (75, 75, 0)
    assert "locked by another program" in plain.errors
    assert "locked by another program" in as_json.document["error"]
    assert "written" not in plain.output.replace("0 written", "")
    assert not re.search(r"^\d+  discarded", plain.output, re.MULTILINE)
    assert (rows.rejected(), rows.count()) == (before, 0)


def test_retry_waits_for_a_lock(rows: Rows) -> None:
    reject(rows, events.payload())
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with rows.locked():
        process = start(rows, "retry", "1", "--without-deadlines", **streams)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, b"1  written\n1 written\n")


@pytest.mark.parametrize("arguments", [["list"], ["show", 1], ["retry", 1], ["discard", 1]])
def test_a_file_that_is_not_a_database_is_exit_code_65_and_a_missing_file_78(
    rejected: Rejected, tmp_path: Path, arguments: list[object]
) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database " * 200)
    done = rejected(*arguments, PROJECTOR_DATABASE=f"sqlite:///{broken}")
    assert (done.code, done.output) == (65, "")
    missing = rejected(*arguments, PROJECTOR_DATABASE=f"sqlite:///{tmp_path}/none.db")
    assert (missing.code, missing.output) == (78, "")
    assert "projector migrate" in missing.errors
    assert not (tmp_path / "none.db").exists()


def test_tables_that_do_not_fit_are_exit_78_and_cost_no_event(
    rejected: Rejected, rows: Rows
) -> None:
    reject(rows, events.payload())
    rows.write("ALTER TABLE execution_results RENAME COLUMN expires_at TO deadline")
    done = rejected("retry", 1, "--without-deadlines")
    assert (done.code, ids(rows)) == (78, [1])
    assert "tables" in done.errors


def test_hostile_text_in_an_event_reaches_the_terminal_as_text_only(
    rejected: Rejected, rows: Rows, deployment: Broker
) -> None:
    reject(rows, b"one\ntwo \x1b[2J \xff [bold]b[/bold]", subject=HOSTILE, reason=HOSTILE)
    attempts = (
        "list",
        "list -o wide",
        "list -o csv",
        "show 1",
        "list --json",
        "show 1 --json",
        "retry 1",
        "discard 1",
    )
    for arguments in attempts:
        done = rejected(*arguments.split())
        shown = done.output + done.errors
        assert all(character.isprintable() or character == "\n" for character in shown)
        if arguments in ("list -o wide", "show 1"):
            assert "[red]x[/red]" in done.output
            assert r"\x1b]0;owned\x07" in done.output
    assert rows.rejected() == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_events_are_shown_on_a_terminal_of_any_encoding_and_width(
    rejected: Rejected, rows: Rows, encoding: str
) -> None:
    reject(rows, "schön ☃".encode(), subject="events.schön.☃", reason="weil ☃ " * 200)
    for arguments in (["list"], ["show", 1]):
        done = rejected(*arguments, PYTHONIOENCODING=encoding, COLUMNS="40")
        assert done.code == 0
        assert b"weil" in done.raw


@pytest.mark.every_engine
def test_list_shows_the_newest_events_and_if_there_are_more(rejected: Rejected, rows: Rows) -> None:
    empty = rejected("list")
    assert (empty.code, empty.output, empty.errors) == (0, "", "no matching rejected events\n")
    nothing = {"events": [], "more": False, "remaining": 0}
    assert rejected("list", "--json").document == nothing
    reject(rows, *(b"x" * n for n in range(1, 101)))
    assert rejected("list").errors == ""
    reject(rows, *(b"x" * n for n in range(101, 1102)), first=101)
    done = rejected("list")
    heading, first, *rest = done.output.splitlines()
    assert heading.split() == ["ID", "REJECTED", "UTC", "PC", "REASON"]
    assert first.split(maxsplit=5) == ["1101", "20", "May", "12:00", "pc", EVENT["reason"]]
    assert (done.code, len(rest)) == (0, 99)
    assert done.errors == "100 shown, 1001 more; list them with --limit N or --all\n"
    assert rejected("list", "--all").output.count(EVENT["reason"]) == 1101
    assert len(rejected("list", "-o", "ids", "--limit", 7).output.splitlines()) == 7
    document = rejected("list", "--json").document
    assert (document["more"], document["remaining"]) == (True, 1001)
    assert [event["rejected_id"] for event in document["events"]] == list(range(1101, 1001, -1))
    document = rejected("list", "--json", "--all").document
    assert (len(document["events"]), document["more"]) == (1101, False)


def test_show_prints_every_column_and_the_exact_payload(rejected: Rejected, rows: Rows) -> None:
    text = 'schön ☃\n{"a": [1]}\x00\x7f'
    reject(rows, text.encode(), NOT_UTF8)
    shown = rejected("show", 1)
    assert shown.code == 0
    for part in ("EVENTS", RECORDED_AT, "events.started.e.pc", "the reason at", "schön ☃"):
        assert part in shown.output
    assert '\n  {"a": [1]}\\x00\\x7f' in shown.output
    assert rejected("show", 1, "--json").document == {
        **EVENT,
        "rejected_id": 1,
        "stream_sequence": 1,
        "bytes": len(text.encode()),
        "payload": text,
    }
    document = rejected("show", 2, "--json").document
    assert document["payload"] is None
    assert base64.b64decode(document["payload_base64"]) == NOT_UTF8
    assert r"\xff\x00 not UTF-8 \x1b[31m" in rejected("show", 2).output
    missing = rejected("show", 12, "--json")
    assert (missing.code, missing.output) == (1, "")
    assert "rejected event 12 does not exist" in missing.errors


def test_a_payload_of_several_megabytes_can_be_shown_retried_and_discarded(
    rejected: Rejected, rows: Rows, deployment: Broker
) -> None:
    megabytes = "x" * 9_000_000
    huge = events.payload(result_id="huge", ignored=megabytes)
    reject(rows, huge, megabytes.encode(), events.payload(result_id="after"))
    assert len(rejected("show", 2, "--json").document["payload"]) == len(megabytes)
    assert len(rejected("list").raw) < 2000
    done = rejected("retry", "--all", "--json")
    assert outcomes(done) == {1: "written", 2: "rejected", 3: "written"}
    assert rows.result_ids() == ["after", "huge"]
    assert len(rejected("discard", 2).raw) > len(megabytes)


def test_a_discarded_event_can_be_restored_from_the_output(rejected: Rejected, rows: Rows) -> None:
    reject(rows, NOT_UTF8, b"{}", b"stays", subject=HOSTILE)
    before = rows.rejected()
    done = rejected("discard", 1, 2, 9)
    first, second = done.output.splitlines()
    assert (done.code, done.errors) == (1, "9  does not exist\n2 discarded, 1 unknown\n")
    for line, row in zip((first, second), before, strict=False):
        event = json.loads(line)
        payload, encoded = event.pop("payload"), event.pop("payload_base64", None)
        event["payload"] = base64.b64decode(encoded) if payload is None else payload.encode()
        assert event.pop("bytes") == len(row["payload"])
        assert event == row
    assert (ids(rows), rows.count()) == ([3], 0)


@pytest.mark.every_engine
def test_discard_prints_one_json_document(rejected: Rejected, rows: Rows) -> None:
    for number in range(1, 4):
        reject(rows, b"{}", first=number, reason=f"reason {number % 2}")
    done = rejected("discard", "--reason", "reason 1", "--yes", "--json")
    assert done.code == 0
    assert (done.document["discarded"], done.document["unknown"]) == ([1, 3], [])
    assert [event["payload"] for event in done.document["events"]] == ["{}", "{}"]
    assert ids(rows) == [2]


@pytest.mark.parametrize("selection", [["--all"], ["--reason", "the"]])
def test_discard_without_a_terminal_requires_yes(
    rejected: Rejected, rows: Rows, selection: list[str]
) -> None:
    reject(rows, b"{}")
    done = rejected("discard", *selection)
    assert (done.code, ids(rows)) == (64, [1])
    assert "stdin is not a terminal; pass --yes" in done.errors


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, []), (b"n\n", 1, [1, 2])])
def test_discard_at_a_terminal_asks(rows: Rows, answer: bytes, code: int, left: list[int]) -> None:
    reject(rows, b"{}", b"{}")
    leader, terminal = pty.openpty()
    streams = {"stdin": terminal, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(rows, "discard", "--all", **streams)
    os.write(leader, answer)
    _, errors = process.communicate(timeout=20)
    os.close(leader)
    os.close(terminal)
    assert (process.returncode, ids(rows)) == (code, left)
    assert b"Permanently discard 2 rejected events?" in errors


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("output", [">&-", ">/dev/full", "| true"])
def test_discard_deletes_nothing_that_it_cannot_print(
    rows: Rows, output: str, form: tuple[str, ...]
) -> None:
    reject(rows, *[b"x" * 9999] * 1000)
    shell = ["sh", "-c", f'"$0" "$@" {output}', PROJECTOR, "rejected", "discard", "--all", "--yes"]
    environment = clean_environment(PROJECTOR_DATABASE=rows.url)
    done = subprocess.run([*shell, *form], env=environment, check=False, timeout=50)
    assert done.returncode == (0 if output == "| true" else 75)  # that of `true`
    assert rows.count("rejected_events") == 1000


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry"], ["discard"], ["retry", 1, "--all"], ["discard", "--all", "--reason", "x"],
        ["retry", "--reason", ""], ["retry", "one"], ["show"], ["show", 0], ["show", 2**63],
        ["discard", "-1"], ["list", "--no-such"], ["list", 1], ["walk"],
    ],
    ids=str,
)  # fmt: skip
def test_invalid_arguments_are_exit_code_64_and_change_nothing(
    rejected: Rejected, rows: Rows, arguments: list[object]
) -> None:
    reject(rows, events.payload())
    done = rejected(*arguments)
    assert (done.code, done.output, ids(rows)) == (64, "", [1])


def test_no_environment_variable_selects_events(rejected: Rejected, rows: Rows) -> None:
    reject(rows, b"{}")
    variables = {f"PROJECTOR_{name}": "1" for name in ("ALL", "YES", "REASON", "IDS", "JSON")}
    assert rejected("discard", **variables).code == 64
    assert ids(rows) == [1]
