"""The worked examples of a run's life, and what applies their operations to a database."""

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from repo.checkpoint import Position
from repo.execution_results import START_WRITER
from repo.reaper import Reaping
from repo.rejected import RejectedEvent
from repo.repository import Repository, Sweep
from repo.results import Result, result_writer
from repo.sqlite.database import Database
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.messages import Message, Output
from worker.projections.base import MalformedEvent, rejected_event
from worker.projections.manifests import Deadlines, Manifest, ManifestCache, Timeout
from worker.projections.output import output_text
from worker.projections.results import EventResult, build_result, decode_result
from worker.projections.starts import build_run, decode_start

EXAMPLES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("lifecycle_examples.json").read_text("utf-8")
)
_HOUR = 3600 * NANOSECONDS
_DAY = 24 * _HOUR
_POSITION = Position("RESULTS", "backend_results_projector")

_INSERT_EXECUTION = """
INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, target_count, status)
VALUES (?, 'job', '1.0', 'operator', ?, ?, ?)
"""
_CHECKPOINT = """
INSERT INTO checkpoints (stream, consumer, stream_created_at, caught_up_to, last_sequence,
    last_stored_at, place, committed_at)
VALUES (?, ?, '', ?, 0, '', '', '')
ON CONFLICT DO UPDATE SET caught_up_to = max(caught_up_to, excluded.caught_up_to)
"""


class Life:
    """Applies operations one after the other; `ask` runs a statement of another program."""

    def __init__(self, database: Database, ask: Any) -> None:
        self.ask = ask
        self._sequence = 100
        self._closing = ExitStack()
        options: dict[str, Any] = {"retry_for": 0.1, "give_up": threading.Event()}
        self.starts = self._closing.enter_context(Repository(database, START_WRITER, **options))
        self.results = self._closing.enter_context(
            Repository(database, result_writer(_POSITION), **options)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def apply(self, operation: Mapping[str, Any]) -> str | None:
        """Return the answer that a message gets; None for anything else."""
        answer: str | None = getattr(self, f"_{operation['operation']}")(operation)
        return answer

    def _execution(self, operation: Mapping[str, Any]) -> None:
        initiated_at = format_instant(parse_instant(operation["initiated_at"]))
        status = operation.get("status", "pending")
        values = operation["exec_id"], initiated_at, operation["target_count"], status
        self.ask(_INSERT_EXECUTION, values)

    def _delete_row(self, operation: Mapping[str, Any]) -> None:
        statement = "DELETE FROM execution_results WHERE result_id = ?"
        self.ask(statement, (operation["result_id"],))

    def _start(self, operation: Mapping[str, Any]) -> str:
        message = self._message(operation, "events.started.e.p")
        manifests = ManifestCache()
        manifests.replace({})
        start = decode_start(message.payload)
        if operation["timeout_s"] is not None:
            timeout = Timeout(operation["timeout_s"] * NANOSECONDS)
            manifests.replace({start.manifest_id: Manifest(1, timeout, 0)})
        run = build_run(start, message, Deadlines(manifests))
        self.starts.write([run], [], _never)
        return "ack"

    def _result(self, operation: Mapping[str, Any]) -> str:
        message = self._message(operation, "results.q")
        try:
            event = decode_result(message.payload)
        except MalformedEvent as error:
            self.results.write([], [rejected_event("RESULTS", message, str(error))], _never)
            return "rejected"
        self.results.write([_build(event, message, operation)], [], _never)
        if "seq" in operation:
            self.advance(operation["seq"])
        return "ack"

    def write_results(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Write valid results in one batch."""
        messages = [self._message(operation, "results.q") for operation in operations]
        events = [decode_result(message.payload) for message in messages]
        batch = zip(events, messages, operations, strict=True)
        self.results.write([_build(*one) for one in batch], [], _never)

    def advance(self, caught_up_to: int) -> None:
        """Advance the checkpoint of the results."""
        self.ask(_CHECKPOINT, (*_POSITION, caught_up_to))

    def _message(self, operation: Mapping[str, Any], subject: str) -> Message:
        self._sequence += 1
        payload = json.dumps(operation["payload"]).encode()
        sequence = operation.get("seq", self._sequence)
        return Message(subject, payload, sequence, 1, parse_instant(operation["at"]))

    def _tick(self, operation: Mapping[str, Any]) -> None:
        now = parse_instant(operation["now"])
        known = None if operation["w"] is None else min(now, parse_instant(operation["w"]))
        sweep = Sweep(None if known is None else format_instant(known - _HOUR))
        while sweep.after is not None:
            self.starts.sweep(sweep)
        if known is not None:
            limits = format_instant(known), format_instant(known - _DAY)
            reaping = Reaping(format_instant(now), *limits)
            while not reaping.is_complete:
                self.results.reap(reaping)


def _build(event: EventResult, message: Message, operation: Mapping[str, Any]) -> Result:
    def output(key: str | None) -> str | None:
        found = operation.get("objects", {}).get(key)
        return None if found is None else output_text(bytes.fromhex(found["bytes_hex"]))

    stdout, stderr = output(event.stdout_object), output(event.stderr_object)
    return build_result(event, message._replace(output=Output(stdout, stderr)))


def _never(_index: int, reason: str) -> RejectedEvent:
    raise AssertionError(f"a row was rejected: {reason}")
