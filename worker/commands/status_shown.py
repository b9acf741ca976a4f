"""The status as people and programs read it."""

from dataclasses import asdict

from repo.checkpoints import Recalled
from repo.runs import Counted
from worker.broker_view import BrokerView
from worker.commands.output import Members, safe
from worker.commands.tables import paragraph
from worker.settings import Settings

# The rejected events are counted up to here: more are a matter for `rejected list`.
MOST_REJECTED = 10_000


def members_of(
    settings: Settings,
    broker: BrokerView | None,
    recalled: Recalled | None,
    counted: Counted | None,
) -> Members:
    """Return what each of the two told; None for one that did not answer, or is not there."""
    stream = broker.stream if broker else None
    durable = broker.durable if broker else None
    return {
        "server": broker.server if broker else None,
        "stream": {"name": settings.stream, **asdict(stream)} if stream else None,
        "durable": {
            "name": settings.durable,
            "pending": durable.pending,
            "unsettled": durable.unsettled,
            "redelivered": durable.redelivered,
            "requests": durable.requests,
            "delivered": durable.delivered,
            "floor": durable.floor,
        }
        if durable
        else None,
        "database": _database(settings, recalled, counted),
    }


def _database(
    settings: Settings, recalled: Recalled | None, counted: Counted | None
) -> Members | None:
    if recalled is None or counted is None:
        return None
    checkpoint = recalled.checkpoint
    return {
        "url": settings.database,
        "committed_at": checkpoint.committed_at if checkpoint else None,
        "highest_sequence": checkpoint.highest_sequence if checkpoint else None,
        "low_water_mark": checkpoint.low_water_mark if checkpoint else None,
        "in_flight": counted.in_flight,
        "overdue": counted.overdue,
        "without_deadline": counted.without_deadline,
        "rejected": min(counted.rejected, MOST_REJECTED),
        "rejected_more": counted.rejected > MOST_REJECTED,
    }


def status_text(members: Members) -> str:
    """Return the status for a terminal."""
    parts = [_verdict(members)]
    if stream := members["stream"]:
        parts.append(
            paragraph(
                f"stream {stream['name']} (server {members['server']})",
                {
                    "messages": f"{stream['messages']}, {stream['bytes']} bytes",
                    "sequences": f"{stream['first_sequence']} to {stream['last_sequence']}",
                    "created": stream["created_at"],
                },
            )
        )
    if durable := members["durable"]:
        idle = "none waiting: no worker asks for more just now"
        parts.append(
            paragraph(
                f"durable {durable['name']}",
                {
                    "pending": durable["pending"],
                    "unsettled": durable["unsettled"],
                    "redelivered": durable["redelivered"],
                    "settled up to": durable["floor"],
                    "delivered up to": durable["delivered"],
                    "pull requests": durable["requests"] or idle,
                },
            )
        )
    if database := members["database"]:
        more = "at least " if database["rejected_more"] else ""
        parts.append(
            paragraph(
                f"database {database['url']}",
                {
                    "last commit": database["committed_at"] or "none: no checkpoint yet",
                    "committed up to": database["highest_sequence"],
                    "all committed to": database["low_water_mark"],
                    "in flight": f"{database['in_flight']}, {database['overdue']} overdue, "
                    f"{database['without_deadline']} without deadline",
                    "rejected": f"{more}{database['rejected']}",
                },
            )
        )
    return "\n".join(parts)


def _verdict(members: Members) -> str:
    lines = [f"problem: {safe(problem)}" for problem in members["problems"]]
    behind = members["behind_seconds"]
    if behind is not None:
        how = f"{behind:.1f} s behind" if behind else "nothing is waiting"
        lines.append(how)
    lines.append(f"database and broker: {members['finding']}")
    return "\n".join(lines)
