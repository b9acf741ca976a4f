"""Datasette's metadata, whose canned queries are the statements for operators.

`python -m tests.support.datasette` writes the file.
"""

import json
import re
from pathlib import Path
from typing import Any

from repo.statements import statement, texts

FOLDER = Path(__file__).parents[2] / "scripts" / "deploy" / "datasette"
METADATA = FOLDER / "metadata.json"
UNIT = FOLDER / "projector-datasette.service"

# In the order of the page.
TITLES = {
    "runs_in_flight": "In flight",
    "runs_in_flight_by_job": "In flight by job",
    "overdue_runs": "Overdue",
    "runs_without_deadline_by_job": "Without a deadline, by job",
    "reaped_runs_by_job": "Reaped in the last seven days, by job",
    "latest_rejected_events": "Rejected events",
    "runs_of_pc": "Runs of a PC",
    "executions_by_status": "Executions by status",
    "runs_ended_per_hour": "Ended in the last day, by hour and outcome",
    "rejected_events_by_reason": "Rejected events by reason",
    "row_counts": "Rows of each table",
}

# What a person may sort by, for which there is an index: anything else reads the whole table.
SORTABLE = {
    "execution_results": ["result_id", "exec_id", "pc_id", "job_id"],
    "executions": ["exec_id", "status"],
    "rejected_events": ["rejected_id"],
    "checkpoints": ["stream"],
}
HIDDEN = ("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock", "sqlite_sequence")


def document() -> str:
    """Return the file's text."""
    tables: dict[str, Any] = {
        table: {"sortable_columns": names} for table, names in SORTABLE.items()
    }
    tables.update({table: {"hidden": True} for table in HIDDEN})
    queries = {name: _query(name, title) for name, title in TITLES.items()}
    databases = {"projector": {"queries": queries, "tables": tables}}
    metadata = {"title": "Started runs", "databases": databases}
    return json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"


def _query(name: str, title: str) -> dict[str, Any]:
    comments, code = re.fullmatch(
        r"((?:--[^\n]*\n)+)(.*);", texts("sqlite")[statement(name)], re.DOTALL
    ).groups()  # type: ignore[union-attr]
    text = " ".join(line.removeprefix("-- ") for line in comments.splitlines())
    purpose, _, _ = text.removeprefix("Operators: ").partition(" Frequency:")
    return {
        "title": title,
        "description": purpose[0].upper() + purpose[1:],
        "sql": code,
        "hide_sql": True,  # shown by a click; the rows come first
    }


if __name__ == "__main__":
    METADATA.write_text(document(), "utf-8")
