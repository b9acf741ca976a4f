"""Rejected events put right by the real command, beside real workers, on a real file."""

import base64
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker, Publisher
from tests.support.commands import Done, run_projector
from tests.support.events import stored_text
from tests.support.nats_server import NatsServer
from tests.support.proxy import PlainServer
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually

RECORDED_AT = "2026-05-20T12:00:01.000000001+00:00"
BAD = b"\xff\x00 no start \x1b[31m"
IMPATIENT = ("--busy-timeout", "50ms", "--retry-for", "300ms")

INSERT = (
    "INSERT INTO rejected_events"
    " (stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)"
    " VALUES (?, ?, ?, ?, ?, ?, '2026-05-20T12:00:02+00:00')"
)

Rejected = Callable[..., Done]


@pytest.fixture
def rejected(rows: Rows, server: NatsServer, tmp_path: Path) -> Rejected:
    """Return a function that runs `projector rejected` on the test's own database."""

    def run(*arguments: object, **environment: str) -> Done:
        return run_projector(
            "rejected",
            *arguments,
            cwd=tmp_path,
            **{
                "PROJECTOR_DATABASE": rows.url,
                "PROJECTOR_NATS_URL": server.url,
                "PROJECTOR_LOG_FORMAT": "text",
                **environment,
            },
        )

    return run


def reject(
    rows: Rows,
    payload: bytes,
    sequence: int = 1,
    *,
    stream: str = "EVENTS",
    recorded_at: str = RECORDED_AT,
    subject: str = "events.started.e.pc",
    reason: str = "as an older version saw it",
) -> None:
    """Keep a message among the rejected, as a worker that did not understand it has."""
    rows.write(INSERT, stream, sequence, recorded_at, subject, payload, reason)


def reject_many(rows: Rows, many: Sequence[tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(rows.path)) as connection, connection:
        connection.executemany(INSERT, many)


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("projector")), "rejected", *arguments]


def ids(rows: Rows) -> list[int]:
    return [row["rejected_id"] for row in rows.rejected()]


def outcomes(done: Done) -> dict[int, str]:
    return {event["rejected_id"]: event["outcome"] for event in done.document["events"]}


@pytest.fixture
def manifest(broker: Broker) -> None:
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "360s"}})


# --- retry ----------------------------------------------------------------------------------------


def test_what_a_fixed_worker_understands_is_written_and_what_it_does_not_stays(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    rows.write(
        "INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at,"
        " target_count) VALUES ('execution-1', 'job-1', '1', 'x', '2026-05-20T12:00:00+00:00', 1)"
    )
    reject(rows, events.payload(result_id="good"), 1)
    reject(rows, BAD, 2)
    done = rejected("retry", 1, 2)
    assert done.code == 1
    assert done.output.splitlines() == [
        "1  written",
        "2  rejected: not UTF-8: invalid start byte at byte 0",
        "1 written, 1 rejected",
    ]
    run = rows.run("good")
    assert run is not None
    assert run["recorded_at"] == RECORDED_AT
    assert run["started_at"] == stored_text(events.STARTED_AT)
    assert run["expires_at"] == stored_text("2026-05-20T12:00:01.000000001Z", plus=540)
    assert run["finished_at"] is None
    assert rows.query("SELECT status FROM executions") == [{"status": "running"}]
    (left,) = rows.rejected()
    assert (left["rejected_id"], left["payload"]) == (2, BAD)
    assert left["reason"] == "not UTF-8: invalid start byte at byte 0"
    assert left["rejected_at"] == "2026-05-20T12:00:02+00:00"


def test_retrying_twice_changes_nothing_more_and_says_so(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    reject(rows, events.payload(result_id="good"), 1)
    reject(rows, b"{}", 2)
    assert rejected("retry", "--all").code == 1
    before = (rows.rejected(), rows.run("good"))
    again = rejected("retry", 1, 2, 2, "--json")
    assert again.code == 1
    assert outcomes(again) == {1: "unknown", 2: "rejected"}
    assert (rows.rejected(), rows.run("good")) == before
    assert rejected("retry", "--all").code == 1


def test_all_written_is_exit_0_and_so_is_nothing_to_do_which_needs_no_broker(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    reject(rows, events.payload())
    assert rejected("retry", "--all").code == 0
    nobody = {"PROJECTOR_NATS_URL": "nats://127.0.0.1:1"}
    nothing = rejected("retry", "--all", **nobody)
    assert (nothing.code, nothing.output, nothing.errors) == (0, "0 written\n", "")
    unknown = rejected("retry", 7, **nobody)
    assert unknown.code == 1
    assert unknown.output.splitlines() == ["7  no such rejected event", "1 unknown"]


def test_a_result_that_is_there_already_stays_untouched_and_its_event_goes(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id, started_at, recorded_at,"
        " finished_at, exit_code, stdout) VALUES ('done', 'r', 'p', 's', 't', 'u', 7, 'hello')"
    )
    before = rows.run("done")
    reject(rows, events.payload(result_id="done"))
    done = rejected("retry", 1, "--json")
    assert done.code == 0
    assert done.document == {
        "events": [{"rejected_id": 1, "outcome": "written"}],
        "written": 1,
        "rejected": 0,
        "unknown": 0,
        "runs_duplicate": 1,
    }
    assert rows.run("done") == before
    assert rows.rejected() == []


def test_a_reason_selects_literally(rejected: Rejected, rows: Rows, manifest: None) -> None:
    reasons = ["100% off", "100 off", "a_b", "axb", "[bold]x", "x"]
    for number, reason in enumerate(reasons, 1):
        reject(rows, events.payload(result_id=f"r{number}"), number, reason=reason)
    assert rejected("retry", "--reason", "100%").code == 0
    assert rejected("retry", "--reason", "a_b").code == 0
    assert rejected("retry", "--reason", "[bold]").code == 0
    assert rejected("retry", "--reason", "A").code == 0
    assert ids(rows) == [2, 4, 6]
    assert rows.result_ids() == ["r1", "r3", "r5"]


def test_the_first_of_two_starts_of_a_run_wins_as_it_would_have(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    for number in (1, 2):
        reject(rows, events.payload(result_id="same", version=f"{number}"), number)
    assert rejected("retry", "--all").code == 0
    assert [row["version"] for row in rows.query("SELECT version FROM execution_results")] == ["1"]


def test_the_stream_is_the_one_of_the_event_whatever_the_settings_say(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    for stream in ("EVENTS", "OTHER", "EVENTS2"):
        reject(rows, events.payload(result_id=stream), 5, stream=stream)
        reject(rows, b"still none", 6, stream=stream)
    assert rejected("retry", "--all", PROJECTOR_STREAM="ELSEWHERE").code == 1
    assert rows.result_ids() == ["EVENTS", "EVENTS2", "OTHER"]
    left = [(row["stream"], row["stream_sequence"]) for row in rows.rejected()]
    assert left == [("EVENTS", 6), ("OTHER", 6), ("EVENTS2", 6)]


def test_an_event_whose_time_is_of_another_hand_is_refused_and_stays(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    for number, text in enumerate(["2026-05-20T12:00:01Z", "yesterday", ""], 1):
        reject(rows, events.payload(), number, recorded_at=text)
    done = rejected("retry", "--all", "--json")
    assert (done.code, set(outcomes(done).values())) == (1, {"rejected"})
    assert "2026-05-20T12:00:01+00:00" in done.output
    assert ids(rows) == [1, 2, 3]
    assert rows.count() == 0


@pytest.mark.usefixtures("manifest")
def test_more_than_a_transaction_holds_is_retried_while_a_worker_writes(
    rejected: Rejected, rows: Rows, broker: Broker, server: NatsServer, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    worker.wait_for("pull.started")
    publisher = Publisher(server.url)
    reject_many(
        rows,
        [
            ("EVENTS", 10**9 + n, RECORDED_AT, "s", payload, "old")
            for n in range(1300)
            for payload in [b"no" if n % 13 == 0 else events.payload(result_id=f"again-{n:04}")]
        ],
    )
    done = rejected("retry", "--all", "--json")
    published = publisher.stop()
    eventually(broker.is_acked, 20, lambda: worker.text)
    assert worker.stop() == 0
    assert done.code == 1
    assert (done.document["written"], done.document["rejected"]) == (1200, 100)
    assert rows.count("rejected_events") == 100
    assert set(rows.result_ids()) >= {*published, *(f"again-{n:04}" for n in range(1300) if n % 13)}
    late = "SELECT 1 FROM execution_results WHERE result_id LIKE 'again%' AND expires_at IS NULL"
    assert rows.query(late) == []


def test_what_the_worker_rejects_can_be_retried_and_is_told_as_before(
    rejected: Rejected, rows: Rows, broker: Broker, start_worker: StartWorker, manifest: None
) -> None:
    broker.make_stream()
    broker.publish(b"{}")
    worker = start_worker(rows, "--until-idle")
    assert worker.exit_code() == 0
    before = rows.rejected()
    done = rejected("retry", "--all")
    assert (done.code, rows.rejected()) == (1, before)
    assert done.errors == ""


# --- deadlines ------------------------------------------------------------------------------------


def test_without_manifests_nothing_is_projected_unless_that_is_wanted(
    rejected: Rejected, rows: Rows, broker: Broker
) -> None:
    reject(rows, events.payload(result_id="good"))
    refused = rejected("retry", 1)
    assert refused.code == 78
    assert refused.output == ""
    assert "no such bucket" in refused.errors
    assert "--without-deadlines" in refused.errors
    assert ids(rows) == [1]
    assert rejected("retry", 1, "--without-deadlines").code == 0
    run = rows.run("good")
    assert run is not None
    assert run["expires_at"] is None


def test_a_broker_that_is_away_is_temporary_and_changes_nothing(
    rejected: Rejected, rows: Rows
) -> None:
    reject(rows, events.payload())
    refused = rejected("retry", "--all", PROJECTOR_NATS_URL="nats://127.0.0.1:1")
    assert refused.code == 75
    assert "cannot be reached" in refused.errors
    assert (ids(rows), rows.count()) == ([1], 0)


def test_credentials_never_go_out_in_plaintext_where_tls_was_asked_for(
    rejected: Rejected, rows: Rows
) -> None:
    reject(rows, events.payload())
    with PlainServer() as plain:
        url = f"tls://user:s3cret@127.0.0.1:{plain.port}"
        refused = rejected("retry", 1, PROJECTOR_NATS_URL=url)
    assert refused.code == 78
    assert "TLS" in refused.errors
    assert b"s3cret" not in plain.received
    assert "s3cret" not in refused.errors
    assert ids(rows) == [1]


def test_a_broker_that_wants_a_token_gets_it(
    rejected: Rejected, rows: Rows, make_server: Callable[..., NatsServer]
) -> None:
    server = make_server("authorization { token: s3cret }").start()
    with Broker(server.url, token="s3cret") as broker:
        broker.make_bucket()
        broker.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    reject(rows, events.payload(result_id="good"))
    without = rejected("retry", 1, PROJECTOR_NATS_URL=server.url)
    assert without.code == 75
    assert "Authorization" in without.errors
    given = rejected("retry", 1, PROJECTOR_NATS_URL=server.url, PROJECTOR_TOKEN="s3cret")
    assert given.code == 0
    run = rows.run("good")
    assert run is not None
    assert run["expires_at"] == stored_text("2026-05-20T12:00:01.000000001Z", plus=140)


# --- trouble with the database --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("retry", 1, 2, "--without-deadlines"), ("discard", 1, 2), ("discard", "--all", "--yes")],
)
def test_a_locked_database_is_exit_75_and_loses_nothing(
    rejected: Rejected, rows: Rows, arguments: tuple[Any, ...]
) -> None:
    reject(rows, events.payload(), 1)
    reject(rows, BAD, 2)
    before = rows.rejected()
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        plain = rejected(*arguments, *IMPATIENT)
        as_json = rejected(*arguments, *IMPATIENT, "--json")
        reading = rejected("list")
    assert (plain.code, as_json.code, reading.code) == (75, 75, 0)
    assert "locked by another program" in plain.errors
    assert "locked by another program" in as_json.document["error"]
    assert "written" not in plain.output.replace("0 written", "")
    assert not re.search(r"^\d+  discarded", plain.output, re.MULTILINE)
    assert (rows.rejected(), rows.count()) == (before, 0)


def test_a_lock_that_passes_is_waited_for(rejected: Rejected, rows: Rows) -> None:
    reject(rows, events.payload())
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process = subprocess.Popen(
            command("retry", "1", "--without-deadlines", "--database", rows.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=rows.path.parent,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        other.execute("ROLLBACK")
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, b"1  written\n1 written\n")


def test_a_file_that_is_no_database_is_exit_65_and_a_missing_one_78(
    rejected: Rejected, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all " * 200)
    for arguments in (["list"], ["show", 1], ["retry", 1], ["discard", 1]):
        done = rejected(*arguments, PROJECTOR_DATABASE=f"sqlite:///{broken}")
        assert (done.code, done.output) == (65, "")
        missing = rejected(*arguments, PROJECTOR_DATABASE=f"sqlite:///{tmp_path}/none.db")
        assert (missing.code, missing.output) == (78, "")
        assert "projector migrate" in missing.errors
    assert not (tmp_path / "none.db").exists()


def test_tables_that_take_no_row_are_a_matter_of_set_up_and_lose_nothing(
    rejected: Rejected, rows: Rows
) -> None:
    reject(rows, events.payload())
    rows.write("ALTER TABLE execution_results RENAME COLUMN expires_at TO deadline")
    done = rejected("retry", 1, "--without-deadlines")
    assert done.code == 78
    assert "tables" in done.errors
    assert ids(rows) == [1]


# --- list and show --------------------------------------------------------------------------------

NASTY = "events.\x1b]0;owned\x07.\x9b2J\u202e[red]x[/red]\\[link=x]\r\n"


def assert_harmless(output: str) -> None:
    assert all(character.isprintable() or character == "\n" for character in output)
    assert "\r" not in output


def test_nothing_of_the_stream_reaches_the_terminal_as_more_than_text(
    rejected: Rejected, rows: Rows, manifest: None
) -> None:
    payload = b"line one\nline two \x1b[2J \xff [bold]b[/bold]"
    reject(rows, payload, subject=NASTY, reason=NASTY)
    attempts: list[list[object]] = [
        ["list"],
        ["list", "--json"],
        ["show", 1],
        ["show", 1, "--json"],
        ["retry", 1],
        ["discard", 1],
    ]
    for arguments in attempts:
        done = rejected(*arguments)
        assert_harmless(done.output)
        assert_harmless(done.errors)
        if arguments[0] in ("list", "show") and "--json" not in arguments:
            assert "[red]x[/red]" in done.output
            assert r"\x1b]0;owned\x07" in done.output
    assert rows.rejected() == []


def test_a_terminal_of_any_encoding_and_width_gets_all_of_it(
    rejected: Rejected, rows: Rows
) -> None:
    reject(rows, "schön ☃".encode(), subject="events.schön.☃", reason="weil ☃ " * 200)
    for encoding in ("ascii", "latin-1", "utf-8"):
        for arguments in (["list"], ["show", 1]):
            done = rejected(*arguments, PYTHONIOENCODING=encoding, COLUMNS="40")
            assert done.code == 0
            assert b"events.sch" in done.raw


def test_the_list_is_newest_first_bounded_and_tells_that_there_is_more(
    rejected: Rejected, rows: Rows
) -> None:
    many = [("EVENTS", n, RECORDED_AT, f"subject-{n}", b"x" * n, "why") for n in range(1, 1102)]
    reject_many(rows, many[:100])
    assert rejected("list").errors == ""
    reject_many(rows, many[100:])
    done = rejected("list")
    lines = done.output.splitlines()
    assert done.code == 0
    assert lines[0].split() == ["id", "rejected", "at", "sequence", "subject", "bytes", "reason"]
    assert lines[1].split() == [
        *("1101", "2026-05-20T12:00:02+00:00", "1101", "subject-1101", "1101", "why")
    ]
    assert len(lines) == 101
    assert "--all" in done.errors
    assert len(re.findall(r"subject-\d+", rejected("list", "--all").output)) == 1101
    document = rejected("list", "--json").document
    assert document["more"] is True
    assert [event["rejected_id"] for event in document["events"]] == list(range(1101, 1001, -1))
    document = rejected("list", "--json", "--all").document
    assert (len(document["events"]), document["more"]) == (1101, False)


def test_the_list_is_filtered_by_what_a_reason_contains(rejected: Rejected, rows: Rows) -> None:
    for number, reason in enumerate(["50%_", "50 xx", "(50%_)"], 1):
        reject(rows, b"", number, reason=reason)
    found = rejected("list", "--reason", "50%_", "--json").document["events"]
    assert [event["rejected_id"] for event in found] == [3, 1]
    empty = rejected("list", "--reason", "none such")
    assert (empty.code, empty.output, empty.errors) == (0, "", "no rejected events\n")
    document = rejected("list", "--reason", "none such", "--json").document
    assert document == {"events": [], "more": False}


def test_an_event_is_shown_whole_to_people_and_exactly_to_programs(
    rejected: Rejected, rows: Rows
) -> None:
    text = 'schön ☃\n{"a": [1]}\x00\x7f'
    reject(rows, text.encode(), 1)
    reject(rows, BAD, 2)
    shown = rejected("show", 1)
    assert shown.code == 0
    for part in ("EVENTS", RECORDED_AT, "events.started.e.pc", "as an older version", "schön ☃"):
        assert part in shown.output
    assert '\n  {"a": [1]}\\x00\\x7f' in shown.output
    assert rejected("show", 1, "--json").document == {
        "rejected_id": 1,
        "rejected_at": "2026-05-20T12:00:02+00:00",
        "stream": "EVENTS",
        "stream_sequence": 1,
        "recorded_at": RECORDED_AT,
        "subject": "events.started.e.pc",
        "reason": "as an older version saw it",
        "bytes": len(text.encode()),
        "payload": text,
    }
    document = rejected("show", 2, "--json").document
    assert document["payload"] is None
    assert base64.b64decode(document["payload_base64"]) == BAD
    assert r"\xff\x00 no start \x1b[31m" in rejected("show", 2).output


def test_a_huge_payload_goes_all_the_way(rejected: Rejected, rows: Rows, manifest: None) -> None:
    megabytes = "x" * 9_000_000
    reject(rows, events.payload(result_id="huge", ignored=megabytes), 1)
    reject(rows, megabytes.encode(), 2)
    reject(rows, events.payload(result_id="after"), 3)
    assert len(rejected("show", 2, "--json").document["payload"]) == len(megabytes)
    assert len(rejected("list").raw) < 2000
    done = rejected("retry", "--all", "--json")
    assert outcomes(done) == {1: "written", 2: "rejected", 3: "written"}
    assert rows.result_ids() == ["after", "huge"]
    assert len(rejected("discard", 2).raw) > len(megabytes)


def test_an_event_that_is_not_there_is_exit_1_by_name(rejected: Rejected, rows: Rows) -> None:
    done = rejected("show", 12, "--json")
    assert (done.code, done.output) == (1, "")
    assert "12" in done.errors


# --- discard --------------------------------------------------------------------------------------


def restored(line: str) -> Row:
    event = json.loads(line)
    payload = event["payload"]
    return {
        **{name: event[name] for name in event if not name.startswith("payload")},
        "payload": base64.b64decode(event["payload_base64"])
        if payload is None
        else payload.encode(),
    }


def test_what_is_discarded_can_be_made_again_from_what_was_printed(
    rejected: Rejected, rows: Rows
) -> None:
    reject(rows, BAD, 1, subject=NASTY)
    reject(rows, b"{}", 2)
    reject(rows, b"stays", 3)
    before = rows.rejected()
    done = rejected("discard", 1, 2, 9)
    assert done.code == 1
    lines = done.output.splitlines()
    assert lines[2:] == [
        "1  discarded",
        "2  discarded",
        "9  no such rejected event",
        "2 discarded, 1 unknown",
    ]
    for line, row in zip(lines[:2], before, strict=False):
        found = restored(line)
        assert found.pop("bytes") == len(row["payload"])
        assert found == row
    assert ids(rows) == [3]
    assert rows.count() == 0


def test_discarding_as_json_is_one_document(rejected: Rejected, rows: Rows) -> None:
    for number in range(1, 4):
        reject(rows, b"{}", number, reason=f"reason {number % 2}")
    done = rejected("discard", "--reason", "reason 1", "--yes", "--json")
    assert done.code == 0
    assert done.document["discarded"] == [1, 3]
    assert done.document["unknown"] == []
    assert [event["payload"] for event in done.document["events"]] == ["{}", "{}"]
    assert ids(rows) == [2]


def test_nobody_is_asked_where_nobody_sits(rejected: Rejected, rows: Rows) -> None:
    reject(rows, b"{}")
    for arguments in (["--all"], ["--reason", "as"]):
        done = rejected("discard", *arguments)
        assert done.code == 64
        assert "--yes" in done.errors
    assert ids(rows) == [1]


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, []), ("n", 1, [1, 2])])
def test_a_person_at_a_terminal_is_asked_how_many_may_go(
    rows: Rows, tmp_path: Path, answer: str, code: int, left: list[int]
) -> None:
    for number in (1, 2):
        reject(rows, b"{}", number)
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        command("discard", "--all", "--database", rows.url),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    os.write(leader, answer.encode() + b"\n")
    _, errors = process.communicate(timeout=20)
    os.close(leader)
    os.close(terminal)
    assert process.returncode == code
    assert b"Discard 2 rejected events" in errors
    assert ids(rows) == left


def test_output_that_nobody_reads_discards_nothing(rows: Rows, tmp_path: Path) -> None:
    reject_many(rows, [("EVENTS", n, RECORDED_AT, "s", b"x" * 9999, "r") for n in range(1, 1001)])
    process = subprocess.Popen(
        command("discard", "--all", "--yes", "--database", rows.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) != 0
    assert rows.count("rejected_events") == 1000


# --- usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry"], ["discard"], ["retry", 1, "--all"], ["discard", "--all", "--reason", "x"],
        ["retry", "--reason", ""], ["retry", "one"], ["show"], ["show", 0], ["show", 2**63],
        ["discard", "-1"], ["list", "--no-such"], ["list", 1], ["walk"],
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_make_no_sense_are_exit_64_and_touch_nothing(
    rejected: Rejected, rows: Rows, arguments: list[object]
) -> None:
    reject(rows, events.payload())
    done = rejected(*arguments)
    assert (done.code, done.output) == (64, "")
    assert ids(rows) == [1]


def test_no_variable_chooses_events(rejected: Rejected, rows: Rows) -> None:
    reject(rows, b"{}")
    variables = {f"PROJECTOR_{name}": "1" for name in ("ALL", "YES", "REASON", "IDS", "JSON")}
    assert rejected("discard", **variables).code == 64
    assert ids(rows) == [1]


@pytest.mark.parametrize("name", [(), ("list",), ("show",), ("retry",), ("discard",)], ids=str)
def test_every_command_explains_itself(rejected: Rejected, name: tuple[str, ...]) -> None:
    done = rejected(*name, "--help")
    assert done.code == 0
    if name:
        assert f"projector rejected {name[0]}" in done.output
        assert "With --json: " in done.output
