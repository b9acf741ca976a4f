"""The story in four steps: set up, play, stop and continue, look at the tables."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console, OverflowMethod
from rich.text import Text

from tests.demo.agents import Agents
from tests.demo.fleet import MANIFESTS, PCS, UNKNOWN_MANIFEST, Event, Execution, Fleet
from tests.demo.process import DemoFailed, Worker
from tests.demo.report import problems, show_tables, show_where_to_look, sums
from tests.demo.tables import Rows, Tables


class Story:
    """Plays everything once."""

    def __init__(self, console: Console, folder: Path, url: str, pace: float) -> None:
        self._console = console
        self._database = folder / "projector.db"
        self._log = folder / "worker.log"
        self._url = url
        self._pace = pace
        self._fleet = Fleet()
        self._executions: list[Execution] = []
        self._finished: Rows = {}

    def play(self) -> None:
        """Play all steps; raises DemoFailed if a result is wrong."""
        self._say("start-projector: what is running in the fleet right now?", "bold")
        self._say(
            f"{len(PCS)} PCs start scripts and publish an event for each start. The worker turns "
            "the events into rows in flight, with deadlines. Broker, worker and database are real; "
            "this program plays the PCs and the fleet's other programs for about 15 seconds."
        )
        with Agents(self._url, self._pace) as self._agents:
            self._heading("1  A broker, manifests and the worker")
            self._show_broker()
            with self._start("--create-stream", "--migrate") as self._worker:
                self._worker.until(self._worker.pulls, "the worker pulls")
                with Tables(self._database) as self._tables:
                    self._show_set_up()
                    self._heading("2  The PCs start scripts, and the worker follows")
                    self._play_acts()
                    self._heading("3  The worker stops, the PCs continue, a second worker starts")
                    self._stop_and_continue()
                    self._heading("4  What the tables contain now")
                    self._look()
        show_where_to_look(self._console, self._database, self._log)

    # --- step 1 ---

    def _show_broker(self) -> None:
        self._agents.register_manifests()
        manifests = ", ".join(f"{name} {timeout}" for name, timeout in MANIFESTS.items())
        self._say(f"nats-server on {self._url} stores its data in a temporary folder.")
        self._say(f"Manifests in the bucket jobs, with their timeouts: {manifests}.")

    def _show_set_up(self) -> None:
        stream = self._agents.stream_info().config
        age, size = (stream.max_age or 0) / 86_400, (stream.max_bytes or 0) >> 20
        self._say(
            f"The worker created the tables, the consumer and the stream {stream.name}: "
            f"{', '.join(stream.subjects or [])}, kept for {age:.0f} days, at most {size} MiB."
        )

    # --- step 2 ---

    def _play_acts(self) -> None:
        fleet = self._fleet
        self._columns("what the PCs publish", "events", "new rows", "after", "execution")
        inventory = fleet.broadcast(self._deploy("inventory-0520", "inventory", 16))
        self._act("inventory to 16 PCs", inventory, 1.2)
        updates = fleet.broadcast(self._deploy("updates-0520", "install-updates", 48))
        self._act("install-updates to 48 PCs", updates, 2.0)
        backups = fleet.broadcast(self._deploy("backups-0520", "backup-profiles", 24))
        self._act("backup-profiles to 24 PCs", backups, 1.2)
        unknown = fleet.broadcast(self._deploy("cleanup-0520", UNKNOWN_MANIFEST, 6))
        self._act("old-cleanup, unknown manifest", unknown, 0.8)
        self._deploy("updates-0521", "install-updates", 48)  # no PC starts it
        self._act("ad-hoc runs, no execution", fleet.ad_hoc(12), 1.0)
        self._act("hours late, from outboxes", fleet.ad_hoc(8, late=True), 0.8)
        for name, pcs, status in (("inventory", 4, "completed"), ("backup-profiles", 2, "expired")):
            ended = self._deploy(f"{name}-0519", name, pcs, status)
            self._act(f"late, execution {status}", fleet.broadcast(ended, hours_late=20), 0.4)
        # Another program writes results: of runs in flight, and of runs whose start comes later.
        overtaken = fleet.ad_hoc(3)
        self._tables.write_results(inventory[:12], before_their_starts=False)
        self._tables.write_results(overtaken, before_their_starts=True)
        self._finished = self._tables.finished_runs()
        self._act("starts after their results", overtaken, 0.4)
        self._act("starts published twice", [*inventory[:6], *fleet.random.sample(updates, 8)], 0.8)
        self._act("malformed, seven kinds", fleet.malformed(), 1.0)

    def _act(self, what: str, events: list[Event], seconds: float) -> None:
        """Publish events, wait until they are in the tables and acked, and print what changed."""
        tables, before = self._tables, self._tables.counts()
        was = tables.status(events)
        self._agents.play(events, seconds=seconds)
        published = time.monotonic()
        self._worker.until(self._in_the_tables, f"rows of {what!r}")
        after = f"{(time.monotonic() - published) * 1000:.0f} ms"
        self._worker.until(self._agents.is_acked, f"acks of {what!r}")
        runs, rejected = (now - then for now, then in zip(tables.counts(), before, strict=True))
        rows = f"{rejected} rejected" if rejected else str(runs)
        status = tables.status(events)
        kept = f"still {status}" if status not in ("", "running") else ""
        change = f"{was} → {status}" if was != status else kept
        self._columns(what, str(len(events)), rows, after if runs or rejected else "", change)

    def _in_the_tables(self) -> bool:
        runs, rejected = self._tables.counts()
        agents = self._agents
        return runs >= len(agents.result_ids) and rejected >= len(agents.malformed_sequences)

    # --- step 3 ---

    def _stop_and_continue(self) -> None:
        fleet, agents = self._fleet, self._agents
        rotation = fleet.broadcast(self._deploy("rotation-0520", "rotate-logs", 36))
        outboxes = fleet.ad_hoc(180, late=True, site="lyon")
        wave = fleet.shuffled(rotation, outboxes)
        middle = len(wave) // 2
        self._say(
            f"rotate-logs goes to {len(rotation)} PCs, and an outage in Lyon ends: the PCs there "
            f"publish {len(outboxes)} starts of the last hours from their outboxes."
        )
        agents.play(wave[:middle], seconds=1.8)
        self._say("The worker gets SIGTERM. The PCs continue to publish.", "bold")
        self._worker.stop()
        again = fleet.random.sample(wave[:middle], 12)
        agents.play(fleet.shuffled(wave[middle:], again), seconds=1.8)
        self._worker.wait()
        consumer = agents.consumer()
        self._say(
            f"It exited with 0. The broker has {consumer.num_pending} pending messages, and "
            f"{consumer.num_ack_pending} that were delivered and not acked."
        )
        with self._start("--until-idle") as second:
            second.wait()
        self._say("The second worker projected the rest and exited with 0.")

    # --- step 4 ---

    def _look(self) -> None:
        agents, tables = self._agents, self._tables
        self._say(
            "The deadline of a run is the time at which the broker stored its start, plus the "
            "timeout of its manifest, plus half the timeout and at least 2 minutes."
        )
        self._console.print()
        show_tables(self._console, tables)
        wrong = problems(agents, tables, finished=self._finished, executions=self._expected())
        if wrong:
            raise DemoFailed("\n".join(["the tables are wrong", sums(agents, tables), *wrong]))
        self._say(f"✓ {sums(agents, tables)}.", "bold green")
        self._say(
            f"✓ Compared one by one: every published result_id has its row, {len(self._finished)} "
            "finished runs and all executions that had ended are unchanged, and every message is "
            "acked.",
            "green",
        )
        self._console.print()

    def _expected(self) -> list[dict[str, Any]]:
        """Return the expected row of each execution, by id."""
        started = {event.members["exec_id"] for event in self._agents.messages if event.members}
        rows = [
            execution.row(started=execution.exec_id in started) for execution in self._executions
        ]
        return sorted(rows, key=lambda row: str(row["exec_id"]))

    # --- helpers ---

    def _start(self, *options: str) -> Worker:
        self._print(f"\n  $ scripts/projector run {' '.join(options)}", "bold")
        place = ["--nats", self._url, "--database", f"sqlite:///{self._database}"]
        form = ["--log-level", "info", "--log-format", "text"]
        return Worker(["run", *place, *options, *form], self._log, self._show_log)

    def _deploy(self, exec_id: str, job_id: str, pcs: int, status: str = "pending") -> Execution:
        execution = self._fleet.execution(exec_id, job_id, pcs, status)
        self._executions.append(execution)
        self._tables.deploy(execution)
        return execution

    def _heading(self, text: str) -> None:
        self._console.print(Text(f"\n{text}\n", "bold cyan"))

    def _say(self, text: str, style: str = "") -> None:
        for line in Text(text, style).wrap(self._console, self._console.width - 2):
            self._print("  " + line.plain.rstrip(), style)

    def _columns(self, *cells: str) -> None:
        what, events, rows, after, execution = cells
        self._print(f"  {what:<30}{events:>7}{rows:>12}{after:>8}   {execution}".rstrip())

    def _show_log(self, line: str) -> None:
        self._print(f"    {line}", "dim yellow" if " WARNING " in line else "dim", crop=True)

    def _print(self, line: str, style: str = "", *, crop: bool = False) -> None:
        """Print one line; `crop` cuts it at the edge of a terminal, and a pipe gets all of it."""
        crop = crop and self._console.is_terminal
        overflow: OverflowMethod = "ellipsis" if crop else "ignore"
        self._console.print(Text(line, style), no_wrap=True, overflow=overflow, crop=crop)
