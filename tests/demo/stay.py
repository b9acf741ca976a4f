"""`--stay`: broker, worker and a small fleet, until Ctrl-C."""

import heapq
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.demo.agents import Agents
from tests.demo.fleet import Event, Fleet
from tests.demo.process import ROOT, Worker
from tests.demo.screen import Screen, shown
from tests.demo.signals import Processes
from tests.demo.tables import Tables

_PAUSE = 0.4  # between two starts
_LONGEST_RUN = 20.0
_SILENT_FOR = 3.0
_MALFORMED_EVERY = 25
_DEPLOY_EVERY = 60
_OPTIONS = ("--create-stream", "--migrate", "--metrics-port", "0")


class Stay:
    """Starts the worker, shows how to take part, and plays the fleet."""

    def __init__(self, screen: Screen, folder: Path, url: str, processes: Processes) -> None:
        self._screen = screen
        self._database = folder / "projector.db"
        self._log = folder / "worker.log"
        self._url = url
        self._processes = processes

    def play(self, is_up: Callable[[], None]) -> None:
        """Play until a signal comes; calls `is_up` once the lines to copy work.

        Raises DemoFailed if the worker ends.
        """
        screen = self._screen
        with Agents(self._url, 1.0) as agents:
            agents.set_up()
            screen.line(f"\n  $ scripts/projector run {' '.join(_OPTIONS)}", "bold")
            place = ["--nats", self._url, "--database", f"sqlite:///{self._database}"]
            form = ["--log-level", "info", "--log-format", "text"]
            arguments = ["run", *place, *_OPTIONS, *form]
            worker = self._processes.start(lambda: Worker(arguments, self._log, screen.log))
            worker.until(lambda: worker.pulls() and bool(self._page(worker)), "the worker pulls")
            worker.be_silent()
            with Tables(self._database) as tables:
                self._show_lines(self._page(worker))
                is_up()
                SmallFleet(agents, tables).play(worker.raise_if_ended)

    def _page(self, worker: Worker) -> str:
        """Return the address of the worker's page once it has one."""
        listening = re.search(r"metrics\.listening.* port=(\d+)", "\n".join(worker.lines))
        return f"http://127.0.0.1:{listening[1]}/" if listening else ""

    def _show_lines(self, page: str) -> None:
        screen, url = self._screen, f"sqlite:///{shown(self._database)}"
        screen.line("")
        screen.say(
            "A small fleet starts and ends scripts now, until Ctrl-C. To take part, open another "
            f"terminal in {ROOT}. These lines publish a start of your own, show it, and are the "
            "page to open:"
        )
        screen.line("")
        screen.to_copy(f".venv/bin/python -m tests.demo.publish --nats {self._url} pc_id=me")
        screen.to_copy(f"scripts/projector runs --pc me --database {url}")
        screen.to_copy(page)
        screen.line("")
        screen.say(f"The worker's log goes to {shown(self._log)}.")


class SmallFleet:
    """Publishes a few events a second: most runs succeed, some fail, some send no result."""

    def __init__(self, agents: Agents, tables: Tables) -> None:
        self._agents = agents
        self._tables = tables
        self._fleet = Fleet()
        self._malformed = itertools.cycle(self._fleet.malformed())
        self._deployed: list[Event] = []
        # What happens later: time, number, action.
        self._later: list[tuple[float, int, Callable[[], object]]] = []

    def play(self, check: Callable[[], None]) -> None:
        """Play for ever; calls `check` between two starts."""
        for number in itertools.count():
            check()
            if number % _DEPLOY_EVERY == 0:
                self._deploy(f"inventory-{number // _DEPLOY_EVERY + 1}")
            if number % _MALFORMED_EVERY == _MALFORMED_EVERY - 1:
                self._publish(next(self._malformed))
            self._start(number)
            self._wait(time.monotonic() + _PAUSE)

    def _deploy(self, exec_id: str) -> None:
        execution = self._fleet.execution(exec_id, "inventory", 8)
        self._tables.deploy(execution)
        self._deployed = self._fleet.broadcast(execution)

    def _start(self, number: int) -> None:
        """Start a run of the deployment, or one without, and decide how it will end."""
        (event,) = [self._deployed.pop()] if self._deployed else self._fleet.ad_hoc(1)
        self._publish(event)
        # Of each kind there is one within the first seconds.
        fate, after = number % 20, self._fleet.random.uniform(1, _LONGEST_RUN)
        if fate == 1:
            self._at(_SILENT_FOR, number, lambda: self._be_overdue(event))
        elif fate in (2, 7, 12):
            failure = {"exit_code": 2, "stderr": "no space left on device"}
            self._at(min(after, fate), number, lambda: self._end(event, **failure))
        else:
            self._at(after, number, lambda: self._end(event))

    def _end(self, event: Event, **members: object) -> None:
        self._publish(*self._fleet.results([event], **members))

    def _be_overdue(self, event: Event) -> None:
        """Move the deadline of a run that sends no result: the real one is minutes away."""
        self._tables.pass_deadline([str((event.members or {})["result_id"])])

    def _publish(self, event: Event) -> None:
        self._agents.publish(event.payload, subject=event.subject)

    def _at(self, seconds: float, number: int, action: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, number, action))

    def _wait(self, until: float) -> None:
        """Wait, and do what is due meanwhile."""
        while self._later and self._later[0][0] <= until:
            due, _, action = heapq.heappop(self._later)
            time.sleep(max(0.0, due - time.monotonic()))
            action()
        time.sleep(max(0.0, until - time.monotonic()))
