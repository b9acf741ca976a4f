"""Lists of runs, executions and rejected events: on a terminal, and for programs."""

import csv
import io
import re
import time
import uuid

import pytest
from click import UsageError
from rich.cells import cell_len

from repo.rejected import kind_of_reason
from tests.integration.conftest import Projector
from tests.support.commands import Done, run_here
from tests.support.rows import Rows
from tests.support.terminal import on_terminal, printed
from worker.codec.timestamps import NANOSECONDS, format_instant

LONG = "inventory-of-installed-software-and-licences-on-all-laptops-in-lyon"
HOSTILE = 'x\x1b[31m,"\n\u202e☃'


def at(seconds: float) -> str:
    """Return a time so many seconds from now, as it is stored."""
    return format_instant(time.time_ns() + int(seconds * NANOSECONDS))


def insert(rows: Rows, result_id: str, **columns: object) -> None:
    names = {"request_id": "r", "exec_id": "deploy-7", "pc_id": "lyon-04", "job_id": "check-disk"}
    times = {"started_at": at(-60), "recorded_at": at(-60), "expires_at": at(600)}
    rows.insert("execution_results", [{"result_id": result_id, **names, **times, **columns}])


def reject(rows: Rows, **columns: object) -> None:
    number = rows.count("rejected_events") + 1
    event = {
        "stream": "EVENTS",
        "stream_sequence": number,
        "recorded_at": at(-60),
        "subject": "events.started.e.lyon-04",
        "reason": "not JSON",
        "rejected_at": at(-50),
        "payload": b"{",
    }
    rows.insert("rejected_events", [{**event, **columns}])


@pytest.fixture
def projector(rows: Rows) -> Projector:
    """Return a function that runs a command in this process, which is faster."""

    def run(*arguments: object, **environment: str) -> Done:
        return run_here(*arguments, **{"PROJECTOR_DATABASE": rows.url, **environment})

    return run


# --- on a terminal --------------------------------------------------------------------------------


def test_every_line_of_a_list_fits_80_columns_and_ids_are_never_folded(rows: Rows) -> None:
    ids = [str(uuid.uuid4()) for _ in range(8)]
    for number, result_id in enumerate(ids):
        ended = {} if number % 2 else {"finished_at": at(-30), "exit_code": 3}
        insert(rows, result_id, job_id=LONG, pc_id=f"{LONG}-{number}", **ended)
    insert(rows, "雪" * 40, job_id="雪" * 60, expires_at=at(-3600))
    for number in range(3):
        rows.insert_execution(f"execution-{uuid.uuid4()}", 5, "running")
        reject(
            rows, subject=f"events.started.e.{LONG}", reason=f"{LONG}: expected at byte {number}"
        )
    rows.write("UPDATE executions SET job_id = ?", LONG)
    for arguments in (
        *("runs", "runs --ended", "runs --by job", "runs --by pc", "runs --failed --by execution"),
        *("executions", "rejected list", "rejected list --by reason", "rejected list --by subject"),
    ):
        terminal = printed(*arguments.split(), database=rows)
        lines = terminal.plain.splitlines()
        assert len(lines) > 1
        too_long = [line for line in lines if cell_len(line) > 80 and "雪" not in line]
        assert too_long == [], arguments
    shown = printed("runs", database=rows).plain
    assert all(f"  {result_id[:8]}\n" in shown for result_id in ids[1::2])
    assert "invent" in shown
    assert "-lyon-1" in shown  # the end of a name that was cut in its middle


def test_an_overdue_run_is_red_unless_colours_are_not_wanted(rows: Rows) -> None:
    insert(rows, "run-1", expires_at=at(-200))
    insert(rows, "run-2", expires_at=at(150))
    insert(rows, "run-3", expires_at=None)
    terminal = printed("runs", database=rows)
    assert "\x1b[31moverdue 3 min" in terminal.text
    assert "  in 2 min" in terminal.plain
    assert "  none" in terminal.plain
    assert "\x1b[31m" not in printed("runs", database=rows, NO_COLOR="1").text


def test_a_watched_list_is_drawn_in_place_survives_a_missing_database_and_ends_at_ctrl_c(
    rows: Rows,
) -> None:
    insert(rows, "run-1")
    watched = ("runs", "--watch", "0.2s")
    with on_terminal(*watched, database=rows) as terminal:
        terminal.wait_for(lambda text: "run-1" in text)
        insert(rows, "run-2")
        terminal.wait_for(lambda text: "run-2" in text)
        # Each frame replaces the one before: up to its first line, then all of it again.
        frames = re.split(r"(?:\x1b\[1A\x1b\[2K)+", terminal.text)
        assert len(frames) > 1
        assert [frame.count("STARTED UTC") for frame in frames if frame.strip()] == [
            1 for frame in frames if frame.strip()
        ]
        away = rows.path.rename(rows.path.with_suffix(".away"))
        terminal.wait_for(lambda text: "Error: " in text)
        away.rename(rows.path)
        terminal.clear()
        terminal.wait_for(lambda text: "run-2" in text)
        terminal.interrupt()
        assert terminal.exit_code() == 0


def test_a_watched_list_that_is_no_terminal_is_printed_again_and_again(
    projector: Projector, rows: Rows
) -> None:
    insert(rows, "run-1")
    arguments = ("runs", "--watch", "0.1s", "-o", "ids")
    with on_terminal(*arguments, database=rows) as terminal:
        terminal.wait_for(lambda text: text.count("run-1\n") > 2)


# --- short ids ------------------------------------------------------------------------------------


@pytest.mark.every_engine
def test_a_short_id_names_one_execution_and_an_ambiguous_one_lists_candidates(
    projector: Projector, rows: Rows
) -> None:
    for name in ("deployment-1", "deployment-10", "other-one"):
        rows.insert_execution(name, 1)
        insert(rows, f"run-of-{name}", exec_id=name)
    shown = projector("executions").output.splitlines()[1:]
    assert [line.split()[-1] for line in shown] == ["other-on", "deployment-10", "deployment-1"]
    found = projector("executions", "other-on", "--json")
    assert found.document["execution"]["exec_id"] == "other-one"
    assert found.errors == "execution other-one\n"
    one = projector("runs", "--execution", "other-on", "-o", "ids")
    assert one.output == "run-of-other-one\n"
    exact = projector("runs", "--execution", "deployment-1", "-o", "ids")
    assert exact.output == "run-of-deployment-1\n"
    assert exact.errors == ""
    with pytest.raises(UsageError, match="deployment-1, deployment-10"):
        projector("runs", "--execution", "deployment")
    # An execution without a row is known by its runs alone, also where it begins another's id.
    insert(rows, "early", exec_id="other-on")
    assert projector("runs", "--execution", "other-on", "-o", "ids").output == "early\n"


def test_a_time_that_another_program_wrote_as_a_number_is_listed_as_it_is(
    projector: Projector, rows: Rows
) -> None:
    insert(rows, "odd", expires_at=1764241200)
    insert(rows, "even")
    assert "1764241200" in projector("runs").output
    assert sorted(projector("runs", "-o", "ids").output.split()) == ["even", "odd"]
    rows.write("UPDATE execution_results SET finished_at = started_at, exit_code = 'abc'")
    rows.write("UPDATE execution_results SET exit_code = 3 WHERE result_id = 'even'")
    ended = projector("runs", "--ended", "--sort", "exit-code", "-o", "ids")
    assert ended.output.split() == ["even", "odd"]


# --- for programs ---------------------------------------------------------------------------------


@pytest.mark.every_engine
def test_csv_has_every_column_and_any_text(projector: Projector, rows: Rows) -> None:
    insert(rows, "run-1", job_id=HOSTILE, exec_id=None)
    done = projector("runs", "-o", "csv")
    assert done.errors == ""
    (run,) = csv.DictReader(io.StringIO(done.output))
    assert run["result_id"] == "run-1"
    assert run["job_id"] == 'x\\x1b[31m,"\\n\\u202e☃'
    assert (run["exec_id"], run["overdue"]) == ("", "false")
    groups = list(csv.DictReader(io.StringIO(projector("runs", "--by", "job", "-o", "csv").output)))
    assert [(group["runs"], group["overdue"]) for group in groups] == [("1", "0")]


def test_what_a_list_leaves_out_is_counted_on_standard_error(
    projector: Projector, rows: Rows
) -> None:
    for number in range(5):
        insert(rows, f"run-{number}", started_at=at(-100 + number))
    done = projector("runs", "-o", "ids", "--limit", 2)
    assert done.output == "run-0\nrun-1\n"
    assert done.errors == "2 shown, 3 more; list them with --limit N or --all\n"
    assert projector("runs", "-o", "ids", "--limit", 5).errors == ""
    with pytest.raises(UsageError, match="exclude"):
        projector("runs", "--all", "--limit", 2)


@pytest.mark.every_engine
def test_a_list_is_sorted_with_unknown_values_last(projector: Projector, rows: Rows) -> None:
    insert(rows, "none", expires_at=None)
    insert(rows, "late", expires_at=at(500))
    insert(rows, "soon", expires_at=at(5))
    for number, took in enumerate((3, 90, 7)):
        times = {"started_at": at(-100), "finished_at": at(-100 + took), "exit_code": number}
        insert(rows, f"took-{took}", **times)
    insert(rows, "reaped", finished_at=at(-20), exit_code=-1, reaped=1)

    def ids(*arguments: object) -> list[str]:
        return projector("runs", "-o", "ids", *arguments).output.split()

    assert ids("--sort", "deadline") == ["soon", "late", "none"]
    assert ids("--sort", "deadline", "--limit", 1) == ["soon"]
    longest = ["took-90", "took-7", "took-3", "reaped"]
    assert ids("--ended", "--sort", "duration", "--all") == longest
    assert ids("--ended", "--sort", "exit-code", "--limit", 2) == ["reaped", "took-3"]
    assert ids("--ended", "--sort", "ended") == ["took-90", "reaped", "took-7", "took-3"]
    for wrong in (("--sort", "duration"), ("--ended", "--sort", "deadline")):
        with pytest.raises(UsageError, match="--sort"):
            projector("runs", *wrong)
    with pytest.raises(UsageError, match="groups"):
        projector("runs", "--by", "pc", "--sort", "pc")


@pytest.mark.every_engine
def test_rejected_events_are_counted_by_reason_pc_and_subject(
    projector: Projector, rows: Rows
) -> None:
    for number in range(3):
        reject(rows, reason=f"not JSON: at byte {number}")
    assert kind_of_reason("not UTF-8: at byte 7, not between -3 and 9") == (
        "not UTF-8: at byte #, not between # and #"
    )
    reject(rows, reason="pc_id: the member is missing", subject="events.started.e.paris-1")
    reject(rows, subject="results.r", payload=b'{"pc_id": "lyon-04"}', rejected_at=at(-5000))
    reject(rows, subject="results.r", payload=b"[]")
    listed = ("rejected", "list")
    by_reason = projector(*listed, "--by", "reason", "--json").document["groups"]
    assert [(one["reason"], one["events"], one["newest_id"]) for one in by_reason] == [
        ("not JSON: at byte 2", 3, 3),
        ("not JSON", 2, 6),
        ("pc_id: the member is missing", 1, 4),
    ]
    by_pc = projector(*listed, "--by", "pc", "--json").document["groups"]
    assert [(one["pc"], one["events"]) for one in by_pc] == [
        *(("lyon-04", 4), ("", 1), ("paris-1", 1))
    ]
    by_subject = projector(*listed, "--by", "subject", "--json").document["groups"]
    assert [one["events"] for one in by_subject] == [3, 2, 1]
    table = projector(*listed, "--by", "reason").output.splitlines()
    assert table[0].split() == ["EVENTS", "FIRST", "UTC", "LAST", "UTC", "NEWEST", "ID", "REASON"]
    assert table[1].endswith("not JSON: at byte 2")


@pytest.mark.every_engine
def test_rejected_events_are_selected_by_all_filters_together(
    projector: Projector, rows: Rows
) -> None:
    reject(rows, rejected_at=at(-5000))
    reject(rows, subject="results.r", payload=b'{"pc_id": "lyon-04"}')
    reject(rows, subject="events.started.e.paris-1")
    reject(rows, reason="another")

    def ids(*arguments: object) -> list[str]:
        return projector("rejected", "list", "-o", "ids", *arguments).output.split()

    assert ids("--pc", "lyon-04") == ["4", "2", "1"]
    assert ids("--since", "1h") == ["4", "3", "2"]
    assert ids("--pc", "lyon-04", "--since", "1h", "--reason", "JSON") == ["2"]
    assert ids("--limit", 2) == ["4", "3"]
    with pytest.raises(UsageError, match="--pc: expected a text"):
        ids("--pc", "")


@pytest.mark.every_engine
def test_events_are_discarded_by_filter_and_standard_output_holds_them_alone(
    projector: Projector, rows: Rows
) -> None:
    for number in range(3):
        reject(rows, subject=f"events.started.e.pc-{number % 2}")
    done = projector("rejected", "discard", "--pc", "pc-0", "--yes")
    assert [line[:16] for line in done.output.splitlines()] == [
        '{"rejected_id": ' for _ in range(2)
    ]
    assert done.errors == "2 discarded\n"
    assert rows.count("rejected_events") == 1


def test_on_a_terminal_a_retry_by_filter_asks_and_prints_reasons_with_their_counts(
    rows: Rows,
) -> None:
    for _ in range(3):
        reject(rows)
    arguments = ("rejected", "retry", "--reason", "JSON", "--without-deadlines")
    for answer, code in (("n", 1), ("y", 1)):
        with on_terminal(*arguments, database=rows) as terminal:
            terminal.wait_for(lambda text: "Retry 3 rejected events?" in text)
            terminal.type(f"{answer}\n")
            assert terminal.exit_code() == code
            assert ("3 still rejected: not JSON" in terminal.plain) == (answer == "y")
            assert ("3 rejected\n" in terminal.plain) == (answer == "y")
