"""One drain of one backlog by one program, or by several of it, timed and checked."""

import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.broker import BenchBroker, Seen
from tests.bench.check import check
from tests.bench.data import DataSet
from tests.bench.process import BenchFailed, Program, Usage, usage
from tests.bench.rivals import Rival
from tests.bench.tables import Templates

_TICK = 0.05
_LONGEST = 3600.0


@dataclass(frozen=True, slots=True)
class Drain:
    """What is to be drained, how, and under which name it is reported.

    With `held_back` the broker delivers only when all workers ask for messages.
    """

    part: str
    rival: Rival
    data: DataSet
    old_rows: int = 0
    workers: int = 1
    held_back: bool = False
    python: str = sys.executable
    label: str = ""


@dataclass(frozen=True, slots=True)
class Drained:
    """What was measured. Times are in seconds, CPU time in seconds an event, memory in bytes."""

    part: str
    rival: str
    label: str
    events: int
    old_rows: int
    workers: int
    manifests: int
    seconds: float
    events_a_second: float
    cpu_an_event: float
    server_cpu_an_event: float
    peak_memory: int
    first_event_after: float | None


@dataclass(slots=True)
class _Use:
    """The programs' use of the machine, followed while they run."""

    programs: list[Program]
    at_begin: dict[int, Usage] = field(default_factory=dict)
    last: dict[int, Usage] = field(default_factory=dict)

    def follow(self) -> None:
        for number, program in enumerate(self.programs):
            now = program.usage()
            if now is not None:
                self.at_begin.setdefault(number, now)
                self.last[number] = now

    def begin(self) -> None:
        self.at_begin.clear()
        self.follow()

    def is_going_on(self) -> bool:
        return any(program.usage() is not None for program in self.programs)

    def cpu(self) -> float:
        return sum(self.last[number].cpu - self.at_begin[number].cpu for number in self.at_begin)

    def peak_memory(self) -> int:
        return max((each.peak_memory for each in self.last.values()), default=0)


class Drainer:
    """MetricsObserver drains against one server, in one folder."""

    def __init__(self, folder: Path, url: str, server_pid: int, templates: Templates) -> None:
        self._folder = folder
        self._url = url
        self._server_pid = server_pid
        self._templates = templates
        self._manifests = 0

    def measure(self, drain: Drain) -> Drained:
        """Prepare everything anew, drain, check; raises BenchFailed where anything is missing."""
        path = self._folder / "measured.db"
        self._templates.copy(drain.data, drain.old_rows, path)
        with BenchBroker(self._url) as broker:
            if drain.rival.needs_broker:
                self._fill(broker, drain)
            # What was prepared must not be written back at the expense of what is measured.
            os.sync()
            measured = (
                self._with_broker(broker, drain, path)
                if drain.rival.needs_broker
                else self._without_broker(drain, path)
            )
            if drain.rival.writes:
                stored_at = broker.stored_at if drain.rival.needs_broker else None
                check(path, drain.data, drain.old_rows, stored_at)
        return measured

    def _fill(self, broker: BenchBroker, drain: Drain) -> None:
        if self._manifests != drain.data.manifests:
            broker.fill_bucket(drain.data.timeouts())
            self._manifests = drain.data.manifests
        broker.fill(drain.data)
        if drain.held_back:
            broker.let_through(1)

    def _with_broker(self, broker: BenchBroker, drain: Drain, path: Path) -> Drained:
        seen = broker.watch(drain.data.events)
        command = drain.rival.command(self._url, path, drain.python)
        started = time.time()
        with ExitStack() as stack:
            programs = [
                stack.enter_context(Program(command, self._folder / f"program-{number}.log"))
                for number in range(drain.workers)
            ]
            use = _Use(programs)
            began, events = self._begin(broker, drain, seen, use)
            server_before = self._server_cpu()
            self._until_settled(broker, seen, use)
            seconds = broker.last_ack() - began
            server = self._server_cpu() - server_before
            for program in programs:
                # A signal at the very end of a process would end it before it can tell its code.
                program.output() if drain.rival.ends_itself else program.stop()
        first = None if seen.first_ack is None else seen.first_ack - started
        return _drained(drain, use, events, seconds, server_cpu=server, first=first)

    def _begin(self, broker: BenchBroker, drain: Drain, seen: Seen, use: _Use) -> tuple[float, int]:
        """Return when the drain began, and how many events were left to drain then.

        Several programs are held back until the last of them asks for messages, and all let go at
        once: they must not be slower for having been started together.
        """
        deadline = time.monotonic() + 60
        while len(seen.pullers) < drain.workers or seen.first_request is None:
            for program in use.programs:
                program.check_running()
            if time.monotonic() > deadline:
                raise BenchFailed(f"nobody pulls:\n{use.programs[0].log}")
            time.sleep(0.001)
        use.begin()
        if not drain.held_back:
            return seen.first_request, drain.data.events
        left = broker.left()
        broker.let_through()
        return time.time(), left

    def _until_settled(self, broker: BenchBroker, seen: Seen, use: _Use) -> None:
        # Asking costs a server 2.9 tens of milliseconds at times, in which it delivers nothing: it
        # is asked only when the end is near.
        deadline = time.monotonic() + _LONGEST
        while (seen.last_ack is None and use.is_going_on()) or broker.left():
            use.follow()
            for program in use.programs:
                program.check_running()
            if time.monotonic() > deadline:
                raise BenchFailed(f"{broker.left()} events are not acked")
            time.sleep(_TICK)
        use.follow()

    def _without_broker(self, drain: Drain, path: Path) -> Drained:
        data = drain.data
        size = ["--events", str(data.events), "--manifests", str(data.manifests)]
        command = [*drain.rival.command(self._url, path, drain.python), *size]
        with Program(command, self._folder / "program-0.log") as program:
            use = _Use([program])
            told = json.loads(program.output(_LONGEST))
        return _drained(drain, use, data.events, float(told["seconds"]))

    def _server_cpu(self) -> float:
        now = usage(self._server_pid)
        return now.cpu if now else 0.0


def _drained(
    drain: Drain,
    use: _Use,
    events: int,
    seconds: float,
    *,
    server_cpu: float = 0.0,
    first: float | None = None,
) -> Drained:
    return Drained(
        part=drain.part,
        rival=drain.rival.key,
        label=drain.label,
        events=events,
        old_rows=drain.old_rows,
        workers=drain.workers,
        manifests=drain.data.manifests,
        seconds=seconds,
        events_a_second=events / seconds,
        cpu_an_event=use.cpu() / events,
        server_cpu_an_event=server_cpu / events,
        peak_memory=use.peak_memory(),
        first_event_after=first,
    )
