"""The status as people and programs read it."""

from dataclasses import asdict

from repo.checkpoint import StoredCheckpoint
from repo.queries import Counted
from worker.cli.output import Members, safe
from worker.cli.tables import paragraph
from worker.jetstream.inspect import BrokerView
from worker.settings import Settings

# The rejected events are counted up to here: more are a matter for `rejected list`.
MOST_REJECTED = 10_000


def members_of(
    settings: Settings,
    broker: BrokerView | None,
    recalled: StoredCheckpoint | None,
    counted: Counted | None,
) -> Members:
    """Return what each of the two told; None for one that did not answer, or is not there."""
    stream = broker.stream if broker else None
    consumer = broker.consumer if broker else None
    return {
        "server": broker.server if broker else None,
        "stream": {"name": settings.stream, **asdict(stream)} if stream else None,
        "consumer": {
            "name": settings.consumer,
            "pending": consumer.pending,
            "ack_pending": consumer.ack_pending,
            "redelivered": consumer.redelivered,
            "requests": consumer.requests,
            "delivered": consumer.delivered,
            "floor": consumer.floor,
        }
        if consumer
        else None,
        "database": _database(settings, recalled, counted),
    }


def _database(
    settings: Settings, recalled: StoredCheckpoint | None, counted: Counted | None
) -> Members | None:
    if recalled is None or counted is None:
        return None
    checkpoint = recalled.checkpoint
    return {
        "url": settings.database,
        "committed_at": checkpoint.committed_at if checkpoint else None,
        "highest_sequence": checkpoint.highest_sequence if checkpoint else None,
        "caught_up_to": checkpoint.caught_up_to if checkpoint else None,
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
    if consumer := members["consumer"]:
        idle = "none waiting: no worker asks for more just now"
        parts.append(
            paragraph(
                f"consumer {consumer['name']}",
                {
                    "pending": consumer["pending"],
                    "ack_pending": consumer["ack_pending"],
                    "redelivered": consumer["redelivered"],
                    "settled up to": consumer["floor"],
                    "delivered up to": consumer["delivered"],
                    "pull requests": consumer["requests"] or idle,
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
                    "all committed to": database["caught_up_to"],
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
