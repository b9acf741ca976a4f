"""A small model of a run's life, written from the contract: each event changes two dictionaries.

It knows no SQL, no batches and no pages. Times are in nanoseconds since 1970.
"""

from dataclasses import dataclass, field

from worker.codec.timestamps import NANOSECONDS

NOTE = "[projector: given up, no result by the deadline]"
HOUR = 3600 * NANOSECONDS


@dataclass(kw_only=True)
class Row:
    """One row of execution_results, without the columns that never differ."""

    request_id: str
    exec_id: str | None
    started_at: int
    recorded_at: int
    job_id: str | None
    version: str | None = None
    expires_at: int | None = None
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    finished_at: int | None = None
    reaped: bool = False
    skipped: bool = False
    parent_result_id: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.finished_at is not None


@dataclass
class Execution:
    target_count: int
    initiated_at: int
    status: str = "pending"
    success_count: int = 0
    failure_count: int = 0

    @property
    def is_counted(self) -> bool:
        """Nothing has been counted while the status is pending or expired."""
        return self.status not in ("pending", "expired")


@dataclass(frozen=True)
class Start:
    result_id: str
    exec_id: str
    stored_at: int
    timeout: int | None


@dataclass(frozen=True)
class Ended:
    """A result, with the sequence of its message."""

    result_id: str
    exec_id: str | None
    stored_at: int
    sequence: int
    exit_code: int = 0
    stdout: str = "o"
    finished_at: int = 0
    manifest_id: str | None = "job"
    request_id: str = "q"
    skipped: bool = False
    parent_result_id: str | None = None


@dataclass
class Model:
    rows: dict[str, Row] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    caught_up_to: int = 0

    def start(self, start: Start) -> None:
        if start.result_id not in self.rows:
            timeout = start.timeout
            self.rows[start.result_id] = Row(
                request_id="q",
                exec_id=start.exec_id,
                started_at=start.stored_at,
                recorded_at=start.stored_at,
                job_id="job",
                version="1.0",
                expires_at=None
                if timeout is None
                else start.stored_at + timeout + max(120 * NANOSECONDS, timeout // 2),
            )
        self._promote(start.exec_id)

    def result(self, result: Ended) -> None:
        row = self.rows.get(result.result_id)
        if row is not None and row.has_ended and not row.reaped:
            return
        was_reaped = row is not None and row.reaped
        if row is None:
            row = self.rows[result.result_id] = Row(
                request_id=result.request_id,
                exec_id=result.exec_id,
                started_at=result.stored_at,
                recorded_at=result.stored_at,
                job_id=result.manifest_id,
                parent_result_id=result.parent_result_id,
            )
        row.exit_code, row.skipped, row.reaped = result.exit_code, result.skipped, False
        row.stdout, row.stderr = result.stdout, ""
        row.finished_at, row.request_id = result.finished_at, result.request_id
        row.job_id = row.job_id if result.manifest_id is None else result.manifest_id
        if was_reaped:
            self._move(row)
        elif result.sequence > self.caught_up_to:
            self._count(result.exec_id, row)

    def tick(self, now: int, known_up_to: int | None) -> None:
        """Sweep, then reap; `known_up_to` is W."""
        for exec_id, execution in self.executions.items():
            if execution.status != "pending":
                continue
            if any(row.exec_id == exec_id for row in self.rows.values()):
                self._promote(exec_id)
            elif known_up_to is not None and execution.initiated_at < min(now, known_up_to) - HOUR:
                execution.status = "expired"
        if known_up_to is not None:
            self._reap(now, min(now, known_up_to))

    def _reap(self, now: int, known_up_to: int) -> None:
        for row in self.rows.values():
            due = row.recorded_at + 24 * HOUR if row.expires_at is None else row.expires_at
            if not row.has_ended and due < known_up_to:
                row.finished_at, row.exit_code, row.reaped = now, -1, True
                row.stderr = f"{row.stderr}\n{NOTE}" if row.stderr else NOTE
                self._count(row.exec_id, row)

    def _promote(self, exec_id: str) -> None:
        execution = self.executions.get(exec_id)
        if not exec_id or execution is None or execution.status != "pending":
            return
        ended = self._ended_of(exec_id)
        if ended:
            self._count_all(execution, ended)
        else:
            execution.status = "running"

    def _count(self, exec_id: str | None, run: Row) -> None:
        execution = self.executions.get(exec_id or "")
        if not exec_id or execution is None:
            return
        if not execution.is_counted:
            others = [run] if run.exec_id != exec_id else []
            self._count_all(execution, self._ended_of(exec_id) + others)
            return
        if run.exit_code == 0:
            execution.success_count += 1
        else:
            execution.failure_count += 1
        _set_status(execution)

    def _count_all(self, execution: Execution, ended: list[Row]) -> None:
        execution.success_count = sum(row.exit_code == 0 for row in ended)
        execution.failure_count = len(ended) - execution.success_count
        _set_status(execution)

    def _move(self, row: Row) -> None:
        execution = self.executions.get(row.exec_id or "")
        if row.exit_code == 0 and row.exec_id and execution is not None and execution.is_counted:
            execution.failure_count -= 1
            execution.success_count += 1

    def _ended_of(self, exec_id: str) -> list[Row]:
        return [row for row in self.rows.values() if row.exec_id == exec_id and row.has_ended]


def _set_status(execution: Execution) -> None:
    total = execution.success_count + execution.failure_count
    execution.status = "completed" if total >= execution.target_count else "running"
