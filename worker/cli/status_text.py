"""What `projector status` prints: what matters on one screen, and the details below it."""

import time
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from worker.cli.output import Members, paragraph, safe
from worker.cli.tables import BAD, DOUBTFUL, Column, Cut, member, print_table, shortened_to
from worker.codec.readable import ago, short_time, span
from worker.status.health import IDLE, WORKING

_GOOD = "green"
_LABEL = 10
_MOST_ERRORS = 3


def print_status(console: Console, members: Members, *, details: bool) -> None:
    """Print the members of `projector status --json` for people."""
    results = members.get("results")
    for line in _summary(members, results):
        # Folded rather than cut: a cause is worth a second line.
        console.print(line, soft_wrap=False)
    _print_workers(console, members, results)
    for line in _counts(members):
        console.print(line)
    if details:
        console.print("\n".join(_paragraphs(members, results)), no_wrap=True, overflow="ignore")


def _line(label: str, text: str, style: str = "") -> Text:
    return Text(f"{label:{_LABEL}} ").append(safe(text), style)


def _summary(members: Members, results: Members | None) -> Iterator[Text]:
    for problem in dict.fromkeys([*members["problems"], *(results or {}).get("problems", ())]):
        yield _line("problem", problem, BAD)
    yield _progress("starts", members)
    if results is not None:
        yield _progress("results", results)
        yield _projected_up_to(members)
    for holder in members["lock_holders"]:
        program = f" ({holder['program']})" if holder["program"] else ""
        yield _line("write lock", f"process {holder['pid']}{program} has it", DOUBTFUL)


def _progress(label: str, members: Members) -> Text:
    """Return how far one projection is."""
    finding, consumer = members["finding"], members["consumer"]
    if consumer is None:
        return _line(label, finding, BAD if finding != "unknown" else DOUBTFUL)
    waiting = consumer["pending"] + consumer["ack_pending"]
    parts = [finding]
    if waiting:
        parts.append(f"{waiting} waiting{_since(members['behind_seconds'])}")
    if members["seconds_left"] is not None:
        parts.append(f"about {span(members['seconds_left'])} left at the present rate")
    is_good = members["caught_up"]
    return _line(label, "; ".join(parts), _GOOD if is_good else DOUBTFUL)


def _since(behind: float | None) -> str:
    if behind is None:
        return ", since when is unknown: the broker does not report its time"
    return f", the oldest for {span(behind)}" if behind else ""


def _projected_up_to(members: Members) -> Text:
    up_to = members["projected_up_to"]
    if up_to is None:
        because = members["unknown_because"]
        return _line("up to", f"unknown, so no run is given up: {because}", DOUBTFUL)
    now = time.time_ns()
    text = f"{short_time(up_to, now)} UTC, {ago(up_to, now)}: all stored by then is in the database"
    return _line("up to", text)


def _print_workers(console: Console, members: Members, results: Members | None) -> None:
    """Print the workers: one line for each process, which announces itself for each projection."""
    found = _processes([*members["workers"], *(results["workers"] if results else ())])
    if not found:
        console.print(_line("workers", *_no_worker(members)))
        return
    console.print()
    columns = (
        Column("WORKER", lambda one: (f"{one['host']} pid {one['pid']}", ""), Cut.MIDDLE),
        Column("STARTED", lambda one: (ago(one["started"], time.time_ns()), "")),
        Column("STATE", _state),
        Column("EVENTS/S", _rate, right=True),
        Column("RESTART HELPS", _restart),
        member("VERSION", "version"),
    )
    print_table(console, columns, found)
    for worker in found:
        for reason in worker["reasons"]:
            console.print(Text(f"  pid {worker['pid']}: {safe(reason)}", DOUBTFUL))
    errors = sorted({tuple(error.values()) for one in found for error in one["errors"]})
    if errors:
        console.print("\nlast warnings and errors")
    for at, level, event, error in errors[-_MOST_ERRORS:]:
        text = safe(f"  {short_time(at, time.time_ns())}  {event}  {error}").rstrip()
        console.print(Text(shortened_to(text, console.width), BAD if level != "warning" else ""))
    console.print()


def _processes(workers: list[Members]) -> list[Members]:
    """Return each process once: in the states of its projections, with the sum of its rates."""
    processes: dict[tuple[str, int], Members] = {}
    for worker in workers:
        key = worker["host"], worker["pid"]
        one = processes.setdefault(key, {**worker, "states": [], "reasons": [], "rates": []})
        one["states"] += [s for s in [worker["state"]] if s not in one["states"]]
        one["reasons"] += [r for r in [worker["reason"]] if r and r not in one["reasons"]]
        one["rates"].append(worker["per_second"])
        if worker["restart_helps"] is not None:
            one["restart_helps"] = bool(one["restart_helps"]) or worker["restart_helps"]
    return [*processes.values()]


def _state(worker: Members) -> tuple[str, str]:
    states = worker["states"]
    text = "/".join(states)
    if worker["same_database"] is False:
        return f"{text}, another database", BAD
    return text, _GOOD if set(states) <= {IDLE, WORKING} else DOUBTFUL


def _rate(worker: Members) -> tuple[str, str]:
    rates = [rate for rate in worker["rates"] if rate is not None]
    return f"{sum(rates):.0f}" if rates else "-", ""


def _restart(worker: Members) -> tuple[str, str]:
    helps = worker["restart_helps"]
    return {True: ("yes", BAD), False: ("no", ""), None: ("unknown", "")}[helps]


def _no_worker(members: Members) -> tuple[str, str]:
    consumer = members["consumer"]
    if consumer is None:
        return "unknown", DOUBTFUL
    if consumer["pull_requests"]:
        return "unknown: a program pulls from the consumer, and announces no worker", DOUBTFUL
    return "none: no program pulls from the consumer", BAD


def _counts(members: Members) -> Iterator[Text]:
    database = members["database"]
    if database is None:
        yield _line("runs", "unknown: the database cannot be read", BAD)
        return
    overdue, rejected = database["overdue"], database["rejected"]
    text = f"{database['in_flight']} in flight, {overdue} overdue"
    without = database["without_deadline"]
    yield _line("runs", f"{text}, {without} without a deadline", BAD if overdue else "")
    shown = f"at least {rejected}" if database["rejected_more"] else f"{rejected}"
    yield _line("rejected", f"{shown} events", DOUBTFUL if rejected else "")
    if lost := database["lost_sequences"]:
        yield _line("lost", f"{lost} sequences were gone before they were read", BAD)
    committed = database["committed_at"]
    text = ago(committed, time.time_ns()) if committed else "never: no checkpoint yet"
    yield _line("committed", text)


def _paragraphs(members: Members, results: Members | None) -> Iterator[str]:
    if members["server"]:
        yield f"server: nats-server {members['server']}"
    for one in (members, results or {}):
        if stream := one.get("stream"):
            yield paragraph(f"stream {stream.pop('name')}", stream)
        if consumer := one.get("consumer"):
            yield paragraph(f"consumer {consumer.pop('name')}", consumer)
    for number, worker in enumerate(members["workers"], 1):
        yield paragraph(f"worker {number}", {**worker, "errors": None})
    if database := members["database"]:
        yield paragraph(f"database {database.pop('url')}", database)
    if results and results["checkpoint"]:
        yield paragraph("checkpoint of results", results["checkpoint"])
