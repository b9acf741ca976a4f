"""Datasette: ages beside times, and /-/fleet, a page of several canned queries.

Only the queries of the metadata run, so the page needs no right to enter SQL.
"""

import re
from datetime import UTC, datetime
from typing import Any

from datasette import hookimpl
from datasette.database import QueryInterrupted
from datasette.utils.asgi import Response
from datasette.utils.sqlite import sqlite3
from markupsafe import Markup

DATABASE = "projector"
# The canned queries of the page, and the columns of each that get a bar.
PANELS = {
    "runs_in_flight_by_job": ("runs", "overdue"),
    "overdue_runs": (),
    "runs_ended_per_hour": ("succeeded", "failed", "reaped"),
    "rejected_events_by_reason": ("events",),
    "executions_by_status": (),
    "row_counts": (),
}
MOST_ROWS = 25

_STORED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6}|\.\d{9})?\+00:00")
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def age(text: str, now: datetime) -> str | None:
    """Return a stored time as `3 h ago` or `in 5 min`; None for any other text."""
    if not _STORED.fullmatch(text):
        return None
    try:
        seconds = (now - datetime.fromisoformat(f"{text[:19]}+00:00")).total_seconds()
    except ValueError:
        return None
    size, unit = next((one for one in _UNITS if abs(seconds) >= 2 * one[0]), (1, "s"))
    number = f"{abs(seconds) / size:.0f} {unit}"
    return f"in {number}" if seconds < 0 else f"{number} ago"


def with_age(value: Any) -> Markup | None:
    """Return a stored time as its age, titled with the whole of it; None for others."""
    shown = age(value, datetime.now(UTC)) if isinstance(value, str) else None
    if shown is None:
        return None
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(value, shown)


@hookimpl
def render_cell(value: Any) -> Markup | None:
    """Show each stored time of any table or query as its age."""
    return with_age(value)


async def fleet(datasette: Any, request: Any) -> Any:
    """Return the page; a query that fails or takes too long is named with its error."""
    await datasette.ensure_permissions(request.actor, [("view-database", DATABASE)])
    queries = await datasette.get_canned_queries(DATABASE, request.actor)
    panels = []
    for name, bars in PANELS.items():
        panel = {"name": name, "title": queries[name]["title"], "bars": bars, "error": ""}
        try:
            found = await datasette.execute(DATABASE, queries[name]["sql"])
            rows = [dict(row) for row in found.rows]
            most = max((row[bar] or 0 for row in rows for bar in bars), default=0)
            panel |= {"columns": found.columns, "rows": rows[:MOST_ROWS], "most": most}
            panel["more"] = len(rows) - MOST_ROWS
        except QueryInterrupted:
            panel["error"] = "it took longer than sql_time_limit_ms allows"
        except sqlite3.Error as error:
            panel["error"] = str(error)
        panels.append(panel)
    context = {"panels": panels, "database": DATABASE, "with_age": with_age}
    return Response.html(await datasette.render_template("fleet.html", context, request=request))


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """Serve the page."""
    return [(r"^/-/fleet$", fleet)]


@hookimpl
def menu_links(datasette: Any) -> list[dict[str, str]]:
    """Name the page in the menu."""
    return [{"href": datasette.urls.path("/-/fleet"), "label": "Fleet"}]
