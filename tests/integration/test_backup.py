"""Backup and restore by the real commands, beside a real worker under load."""

import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import StartPublisher
from tests.integration.conftest import StartWorker
from tests.support.broker import Broker
from tests.support.commands import Done, run_projector
from tests.support.nats_server import NatsServer
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually

SCRIPTS = Path(__file__).parents[2] / "scripts"


def every_run(rows: Rows) -> dict[str, Row]:
    return {
        row["result_id"]: row
        for row in rows.query("SELECT * FROM execution_results WHERE result_id > ''")
    }


def projector(rows: Rows, *arguments: object) -> Done:
    return run_projector(*arguments, "--database", rows.url, cwd=rows.path.parent)


def test_a_backup_taken_under_load_is_restored_and_the_stream_fills_in_the_rest(
    server: NatsServer,
    deployment: Broker,
    rows: Rows,
    start_worker: StartWorker,
    tmp_path: Path,
    start_publisher: StartPublisher,
) -> None:
    publisher = start_publisher(server.url)
    worker = start_worker(rows)
    eventually(lambda: rows.count() > 500, 10)
    done = projector(rows, "backup", "middle.db")
    assert (done.code, done.output) == (0, "middle.db\n")
    copy = Rows(tmp_path / "middle.db")
    held = every_run(copy)
    eventually(lambda: rows.count() > len(held) + 500, 10)
    published = set(publisher.stop())
    eventually(deployment.is_acked, 10)
    refused = projector(rows, "restore", "middle.db")
    assert refused.code == 75
    assert "stop the workers" in refused.errors
    assert worker.stop() == 0
    before = every_run(rows)
    assert published <= set(before)
    assert held.items() <= before.items()

    restored = projector(rows, "restore", "middle.db")
    assert restored.code == 0, restored.errors
    assert every_run(rows) == held
    again = start_worker(rows)
    again.wait_for("catch_up.finished")
    eventually(lambda: rows.count() == len(before) and deployment.is_acked(), 10)
    assert again.logged("database.not_wal") == []
    assert again.stop() == 0
    assert every_run(rows) == before
    assert rows.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    (former,) = tmp_path.glob("projector.db.before-restore-*Z")
    assert every_run(Rows(former)) == before


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_restore_is_rejected_while_a_program_reads(rows: Rows, tmp_path: Path, mode: str) -> None:
    assert projector(rows, "backup", "b.db").code == 0
    identity = rows.path.stat().st_ino
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as reader:
        reader.execute(f"PRAGMA journal_mode = {mode}")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM executions").fetchone()
        refused = projector(rows, "restore", "b.db")
    assert refused.code == 75
    assert rows.path.stat().st_ino == identity
    assert not list(tmp_path.glob("*before*")) + list(tmp_path.glob(".*partial"))
    assert projector(rows, "restore", "b.db").code == 0


def test_a_backup_into_a_folder_is_named_by_the_time(rows: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    done = projector(rows, "backup", folder)
    (made,) = folder.iterdir()
    assert done.output == f"{made}\n"
    assert re.fullmatch(r"projector-\d{8}T\d{6}Z\.db", made.name)


def test_a_backup_that_fails_reports_the_reason(rows: Rows, tmp_path: Path) -> None:
    for target, code, text in (
        ("projector.db", 64, "exists already"),
        ("no folder/b.db", 78, "No such file"),
        ("no folder/", 64, "the folder no folder/ does not exist"),
    ):
        done = projector(rows, "backup", target)
        assert done.code == code
        assert text in done.errors
    assert projector(Rows(tmp_path / "missing.db"), "backup", "b.db").code == 78
    rows.path.write_text("this is no database\n" * 100)
    done = projector(rows, "backup", "b.db")
    assert done.code == 65
    assert not (tmp_path / "b.db").exists()
    assert projector(rows, "restore", "projector.db").code == 65


def test_restoring_a_backup_that_lacks_a_migration_names_the_command_to_run(
    rows: Rows, tmp_path: Path
) -> None:
    rows.write("DELETE FROM _yoyo_migration WHERE migration_id GLOB '*_02_*'")
    assert projector(rows, "backup", "old.db").code == 0
    done = projector(rows, "restore", "old.db")
    assert done.code == 0
    assert "the backup lacks 1 migrations; run: " in done.errors


def test_the_scripts_do_the_same_from_any_folder(rows: Rows, tmp_path: Path) -> None:
    for name in ("backup", "restore"):
        command = [str(SCRIPTS / name), "--database", rows.url, "b.db"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=20)
    shutil.copy(tmp_path / "b.db", tmp_path / "c.db")
    assert Rows(tmp_path / "c.db").count() == 0
