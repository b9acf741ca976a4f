"""Plays the operations of a worked example with a real server, a real worker and real commands.

The times of the examples are fixed, and those of a server are not. So a tick at an instant moves
all times in the database, until that instant is now.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import events
from tests.support.broker import CONSUMER, RESULTS, RESULTS_CONSUMER, STREAM, Broker
from tests.support.commands import run_here
from tests.support.faulty_worker import faulty
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually
from tests.support.worker_process import PROJECTOR, WorkerProcess
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant

_CONSUMERS = {STREAM: CONSUMER, RESULTS: RESULTS_CONSUMER}
_HOUR = 3600 * NANOSECONDS
_SLACK = 120  # seconds; half of every timeout in the examples is less
_TABLES = ("execution_results", "executions", "rejected_events")
_TIMES = {"execution_results": ("recorded_at", "expires_at"), "executions": ("initiated_at",)}
_CHECKPOINT = "SELECT caught_up_to FROM checkpoints WHERE stream = ?"


class Stage:
    """A broker, a database and a worker, for one example after the other."""

    def __init__(
        self, broker: Broker, folder: Path, url: str, fault: tuple[str, object] | None = None
    ) -> None:
        """`url` is the server's, `fault` a name and an argument of faulty_worker.py."""
        self.rows = Rows(folder / "projector.db")
        self.broker = broker
        self.worker: WorkerProcess | None = None
        self._fault = fault
        self._nats = url
        self._timeout: int | None = None
        self._last = {STREAM: 0, RESULTS: 0}
        # The times in the database, and what they are in the example: stored text.
        self._times: dict[str, str] = {}
        self._ticked = ("", "", "")
        self._rebuildable: set[int] = set()

    def prepare(self) -> None:
        """Empty the tables under the running worker; without one, make everything new."""
        self._times.clear()
        self._ticked = ("", "", "")
        self._rebuildable.clear()
        if self.worker is None:
            self._make_broker()
            for file in self.rows.path.parent.glob(f"{self.rows.path.name}*"):
                file.unlink()
            self.rows.migrate()
            self._start_worker()
        for table in _TABLES:
            self.rows.write(f"DELETE FROM {table}")

    def _make_broker(self) -> None:
        self.broker.delete_everything()
        self.broker.make_stream()
        self.broker.make_results_stream()
        self.broker.make_bucket()
        self.broker.make_output_bucket()
        self._timeout, self._last = None, {STREAM: 0, RESULTS: 0}

    def _start_worker(self) -> None:
        """Start the worker, and wait until its first tick with a known W is over."""
        self.rows.insert_execution("old", 1)
        two_hours_ago = format_instant(time.time_ns() - 2 * _HOUR)
        self.rows.write("UPDATE executions SET initiated_at = ?", two_hours_ago)
        options = ("--nats", self._nats, "--database", self.rows.url, "--log-format", "json")
        environment: dict[str, str] = {}
        command: tuple[str, ...] = (PROJECTOR,)
        if self._fault is not None:
            environment, command = faulty(*self._fault)
        log = self.rows.path.with_name("worker.log")
        arguments = [*options, "--upkeep-every", "1h"]
        self.worker = WorkerProcess(log, arguments, environment, command)
        self.worker.until(lambda: self.rows.execution("old") == "0/0 expired")

    def stop_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            try:
                assert worker.stop() == 0, worker.text
            finally:
                worker.kill()

    # --- operations ---

    def apply(self, operation: Mapping[str, Any]) -> str | None:
        """Return the answer that a message gets; None for anything else."""
        answer: str | None = getattr(self, f"_{operation['operation']}")(operation)
        return answer

    def _execution(self, operation: Mapping[str, Any]) -> None:
        exec_id, status = operation["exec_id"], operation.get("status", "pending")
        self.rows.insert_execution(exec_id, operation["target_count"], status)
        now = format_instant(time.time_ns())
        self.rows.write("UPDATE executions SET initiated_at = ? WHERE exec_id = ?", now, exec_id)
        self._times[now] = _stored(operation["initiated_at"])

    def _delete_row(self, operation: Mapping[str, Any]) -> None:
        self._wait_for_checkpoints()
        change = "DELETE FROM execution_results WHERE result_id = ?"
        self.rows.write(change, operation["result_id"])

    def _start(self, operation: Mapping[str, Any]) -> str:
        self._put_manifest(operation["timeout_s"])
        sequence = self.broker.publish(**operation["payload"])
        self._note_times(operation, STREAM, sequence)
        return self._answer(STREAM, sequence)

    def _put_manifest(self, timeout: int | None) -> None:
        if timeout is None:
            self.broker.delete_manifest("job")
        elif timeout != self._timeout:
            self.broker.put_manifest("job", {"execute": {"timeout": f"{timeout}s"}})
        self._timeout = timeout

    def _result(self, operation: Mapping[str, Any]) -> str:
        if operation.get("seq") in self._rebuildable:
            return self._rebuild()
        if "seq" in operation:
            self._rebuildable.add(operation["seq"])
        objects = operation.get("objects", {})
        for key, found in objects.items():
            self.broker.put_output(key, bytes.fromhex(found["bytes_hex"]))
        sequence = self.broker.publish_results([operation["payload"]])
        self._note_times(operation, RESULTS, sequence)
        if operation.get("store_away") and not operation.get("given_up"):
            return self._delayed()
        answer = self._answer(RESULTS, sequence)
        for key in objects:
            self.broker.delete_output(key)
        return answer

    def _rebuild(self) -> str:
        """Read again from the stream what is no longer in the database."""
        done = run_here("rebuild", "--nats", self._nats, "--database", self.rows.url)
        assert done.code == 0, done
        return "ack"

    def _note_times(self, operation: Mapping[str, Any], stream: str, sequence: int) -> None:
        self._last[stream] = sequence
        here, there = self.broker.stored_at(sequence, stream), operation["at"]
        self._times[events.stored_text(here)] = _stored(there)
        if operation.get("timeout_s"):
            plus = operation["timeout_s"] + _SLACK
            self._times[events.stored_text(here, plus=plus)] = events.stored_text(there, plus=plus)

    def _answer(self, stream: str, sequence: int) -> str:
        """Return how the worker has answered a message, as soon as its ack is on the broker."""
        assert self.worker is not None
        consumer = _CONSUMERS[stream]
        self.worker.until(lambda: self.broker.ack_floor(consumer, stream) >= sequence)
        rejected = [row["stream_sequence"] for row in self.rows.rejected()]
        return "rejected" if rejected == [sequence] else "ack"

    def _delayed(self) -> str:
        """Return `nak` once a message is delivered again, long before its ack wait is over."""
        assert self.worker is not None
        self.worker.until(
            lambda: self.broker.consumer(RESULTS_CONSUMER, RESULTS).num_redelivered, within=5
        )
        consumer = self.broker.consumer(RESULTS_CONSUMER, RESULTS)
        return "nak" if consumer.num_ack_pending == 1 else "ack"

    # --- a tick ---

    def _tick(self, operation: Mapping[str, Any]) -> None:
        """Tick at an instant of the example, by the command: the worker's own would come later."""
        if operation["w"] is None:
            self.stop_worker()
            self.broker.delete_stream(RESULTS)
        else:
            self._wait_for_checkpoints()
        if (operation["w"] or operation["now"]) < operation["now"]:
            self.stop_worker()
            self.broker.publish_results([events.result(result_id="waiting", exec_id=None)])
        due = operation.get("due", operation["now"])
        before = self._move_to(parse_instant(due))
        options = ("--nats", self._nats, "--database", self.rows.url, "--retention", "off")
        done = run_here("upkeep", "--once", "--json", *options)
        assert (done.code, done.document["failed"]) == (0, 0), done
        assert (done.document["projected_up_to"] is None) == (operation["w"] is None), done
        if "due" in operation:
            assert done.document["projected_up_to"] < before
        self._ticked = (before, format_instant(time.time_ns()), _stored(operation["now"]))

    def _move_to(self, instant: int) -> str:
        """Move all times in the database until an instant of the example is now; return that."""
        now = time.time_ns()
        moved = {
            here: now - (instant - parse_instant(there)) for here, there in self._times.items()
        }
        for here, there in list(self._times.items()):
            self._times[format_instant(moved[here])] = there
            for table, columns in _TIMES.items():
                for column in columns:
                    change = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                    self.rows.write(change, format_instant(moved[here]), here)
        return format_instant(now)

    def _wait_for_checkpoints(self) -> None:
        """Wait until the database says that all messages are in it: W goes by that."""
        for stream, last in self._last.items():
            eventually(lambda: self.rows.query(_CHECKPOINT, stream)[0]["caught_up_to"] >= last, 10)  # noqa: B023

    # --- what is in the database ---

    def row(self, result_id: str | None) -> Row:
        """Return a row, or the only one, with the times of the example."""
        found = self.rows.query("SELECT * FROM execution_results")
        (row,) = [row for row in found if result_id in (None, row["result_id"])]
        return {name: self._in_example(value) for name, value in row.items()}

    def _in_example(self, value: Any) -> Any:
        before, after, now = self._ticked
        if isinstance(value, str) and before < value < after:
            return now
        return self._times.get(value, value)


def _stored(instant: str) -> str:
    return format_instant(parse_instant(instant))
