"""The page for the browser, from plain values. Pure: asks nobody, and escapes every text."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from string import Template

from repo.overview import JobCount, ReasonCount
from worker.codec.readable import span
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.observability.chart import chart, scale
from worker.observability.database_view import (
    MOST_EVENTS,
    MOST_JOBS,
    MOST_REASONS,
    MOST_RUNS,
    Tables,
    View,
)
from worker.observability.markup import Html, element, foreign, joined
from worker.observability.overview import Facts
from worker.status.health import Verdict
from worker.status.peers import Worker

_Row = tuple[str, ...]


def _file(name: str) -> Html:
    """Return a file of this package, which is as safe as its code."""
    return Html(files("worker.observability").joinpath(name).read_text("utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_TEMPLATE = Template(_file("page.html"))
_STYLE, _SCRIPT = _file("page.css"), _file("page.js")

# Nothing but the page's own style and script, and its own question for a newer page.
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def page(facts: Facts) -> bytes:
    """Return the page as UTF-8."""
    text = _TEMPLATE.substitute(
        title=joined(f"{_words(facts.verdict.state)}: projector on {facts.this.host}"),
        style=_STYLE,
        script=_SCRIPT,
        main=element("main", *_main(facts)),
        made=_time(facts.made_at, format_instant(facts.made_at // NANOSECONDS * NANOSECONDS)),
    )
    return text.encode()


def _main(facts: Facts) -> Iterator[Html]:
    yield element(
        "header",
        element("h1", "start-projector on ", foreign(facts.this.host), f", pid {facts.this.pid}"),
    )
    yield _section("State", *_state(facts.verdict), element("dl", *_figures(facts)))
    yield _section("Last hour", *_charts(facts))
    yield _section("Workers", *_workers(facts))
    yield _section("Runs in flight", *_runs(facts.database))
    yield _section("Rejected events", *_rejected(facts))


def _section(title: str, *children: Html) -> Html:
    return element("section", element("h2", title), *children)


# --- what the worker knows ---


def _state(verdict: Verdict) -> Iterator[Html]:
    mood = "good" if verdict.is_ready else "warn" if verdict.is_live else "bad"
    yield element("p", _words(verdict.state), class_=f"state {mood}")
    answers = ["Ready." if verdict.is_ready else "Not ready."]
    answers += [] if verdict.is_live else ["Not live."]
    answers += ["A restart helps."] if verdict.restart_helps else []
    yield element("p", " ".join(answers))
    if verdict.reason:
        yield element("p", foreign(verdict.reason))


def _figures(facts: Facts) -> Iterator[Html]:
    up_to = facts.projected_up_to_age
    for name, value in (
        ("lag", _duration(facts.lag)),
        ("pending", _number(facts.pending)),
        ("ack pending", _number(facts.ack_pending)),
        ("outstanding here", _number(facts.outstanding)),
        ("projected up to", "unknown" if up_to is None else _ago(up_to)),
        ("last commit", _since(facts.last_commit, facts.made_at, never="none yet")),
    ):
        yield element("div", element("dt", name), element("dd", value))


def _charts(facts: Facts) -> Iterator[Html]:
    lags = [(sample.at, sample.lag) for sample in facts.samples]
    rates = [(sample.at, sample.rate) for sample in facts.samples]
    yield element(
        "div",
        _figure("Lag", "s", lags, facts.moment),
        _figure("Committed by this worker", "messages/s", rates, facts.moment),
        class_="charts",
    )
    yield element("p", "Where the line has a gap, the value is unknown.", class_="soft")


def _figure(title: str, unit: str, points: list[tuple[float, float | None]], now: float) -> Html:
    known = [value for _, value in points if value is not None]
    most = f"highest {_amount(max(known))} {unit}" if known else "unknown"
    return element(
        "figure",
        element("figcaption", element("span", title), element("span", most)),
        element("div", element("span", f"{_amount(scale(known))} {unit}"), class_="axis"),
        chart(points, now, f"{title} in the last hour: {most}"),
        element("div", element("span", "1 h ago"), element("span", "now"), class_="axis"),
    )


def _workers(facts: Facts) -> Iterator[Html]:
    rows = [_worker(facts.this, facts.made_at, " (this one)")]
    rows += [_worker(other, facts.made_at) for other in facts.others or ()]
    yield _table(("worker", "state", "version", "started"), rows)
    if facts.others is None:
        yield element("p", "Whether there are other workers is unknown.", class_="soft")


def _worker(worker: Worker, now: int, note: str = "") -> _Row:
    name = joined(foreign(worker.host), f", pid {worker.pid}{note}")
    database = element("div", foreign(worker.database), class_="soft")
    state, version = foreign(_words(worker.state)), foreign(worker.version)
    return joined(name, database), state, version, _since(worker.started, now)


# --- what the database holds ---


def _runs(view: View) -> Iterator[Html]:
    tables = view.tables
    if tables is None:
        yield _unreadable(view)
        return
    counted = tables.counted
    clock = "the broker's clock" if tables.by_broker else "the clock of this machine"
    summary = (
        f"{_number(counted.in_flight)} in flight, {_number(counted.overdue)} overdue by {clock}"
    )
    yield element("p", f"{summary}, {_number(counted.without_deadline)} without a deadline.")
    if tables.jobs:
        heads = ("job", "runs#", "overdue#", "without deadline#", "oldest")
        yield _table(heads, [_job(job, tables.now) for job in tables.jobs[:MOST_JOBS]])
    yield from _job_notes(tables)


def _job_notes(tables: Tables) -> Iterator[Html]:
    if tables.counted.in_flight > MOST_RUNS:
        text = f"By job, the {_number(MOST_RUNS)} runs that were started first are counted."
        yield element("p", text, class_="soft")
    if len(tables.jobs) > MOST_JOBS:
        yield element("p", f"More jobs than these {MOST_JOBS} have runs in flight.", class_="soft")


def _job(job: JobCount, now: int) -> _Row:
    name = element("i", "unknown") if job.job_id is None else foreign(str(job.job_id))
    overdue = element("strong", _number(job.overdue), class_="bad") if job.overdue else "0"
    counts = _number(job.runs), overdue, _number(job.without_deadline)
    return name, *counts, _since(str(job.first_recorded_at), now)


def _rejected(facts: Facts) -> Iterator[Html]:
    tables = facts.database.tables
    if tables is None:
        yield _unreadable(facts.database)
        return
    is_more = tables.counted.rejected > MOST_EVENTS
    count = f"more than {_number(MOST_EVENTS)}" if is_more else _number(tables.counted.rejected)
    newest = f"; of the newest {_number(MOST_EVENTS)}:" if is_more else "."
    yield element("p", f"{count} rejected{newest}")
    if tables.reasons:
        shown = tables.reasons[:MOST_REASONS]
        rows = [_reason(reason, facts.made_at) for reason in shown]
        yield _table(("reason", "events#", "newest"), rows)
    if len(tables.reasons) > MOST_REASONS:
        yield element("p", f"There are more reasons than these {MOST_REASONS}.", class_="soft")


def _reason(reason: ReasonCount, now: int) -> _Row:
    newest = _since(str(reason.last_rejected_at), now)
    return foreign(str(reason.reason)), _number(reason.events), newest


def _unreadable(view: View) -> Html:
    text = joined("The database cannot be read: ", foreign(view.problem))
    return element("p", text, class_="bad")


# --- pieces ---


def _table(heads: Sequence[str], rows: Iterable[_Row]) -> Html:
    """Return a table whose first column names the rows; the head of numbers ends with #."""
    columns = [(head.rstrip("#"), "number" if head[-1] == "#" else "text") for head in heads]
    names = [element("th", head, scope="col", class_=kind) for head, kind in columns]
    body = [element("tr", *_cells(columns, row)) for row in rows]
    return element("table", element("thead", element("tr", *names)), element("tbody", *body))


def _cells(columns: Sequence[tuple[str, str]], row: _Row) -> Iterator[Html]:
    yield element("th", row[0], scope="row")
    for (head, kind), value in zip(columns[1:], row[1:], strict=True):
        # The label stands beside the value where the screen is too narrow for columns.
        yield element("td", element("span", value), class_=kind, data_label=head)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else span(seconds)


def _ago(seconds: float) -> str:
    # Clocks differ a little, and a text may hold any time.
    return f"in {_duration(-seconds)}" if seconds < -2 else f"{_duration(max(0.0, seconds))} ago"


def _since(at: int | str | None, now: int, *, never: str = "unknown") -> Html:
    """Return how long ago an instant, or a stored text, was; the whole of it is the title."""
    if at is None:
        return joined(never)
    try:
        instant = parse_instant(at) if isinstance(at, str) else at
    except ValueError:
        return foreign(at if isinstance(at, str) else "unknown")
    return _time(instant, _ago((now - instant) / NANOSECONDS))


def _time(instant: int, text: str) -> Html:
    stored = format_instant(instant)
    return element("time", text, datetime=stored, title=f"{stored} (UTC)")
