"""The story: set up, start runs, end them, give up two, stop and continue, look at the tables."""

import time
from pathlib import Path

from tests.demo.agents import Agents
from tests.demo.fleet import MANIFESTS, PCS, UNKNOWN_MANIFEST, Event, Execution, Fleet
from tests.demo.process import DemoFailed, Worker
from tests.demo.report import problems, show_tables, show_where_to_look, sums
from tests.demo.screen import Screen
from tests.demo.signals import Processes
from tests.demo.tables import Rows, Tables


class Story:
    """Plays everything once."""

    def __init__(
        self, screen: Screen, folder: Path, url: str, processes: Processes, pace: float
    ) -> None:
        self._screen = screen
        self._say, self._print = screen.say, screen.line
        self._database = folder / "projector.db"
        self._log = folder / "worker.log"
        self._url = url
        self._processes = processes
        self._pace = pace
        self._fleet = Fleet()
        self._executions: list[Execution] = []
        self._finished: Rows = {}
        self._reaped: set[str] = set()

    def play(self) -> None:
        """Play all steps; raises DemoFailed if a row is wrong."""
        self._say("start-projector: what is running in the fleet, and how did it end?", "bold")
        self._say(
            f"{len(PCS)} PCs run scripts and publish an event when one starts and a result when it "
            "ends. The worker opens a row for each start, with a deadline, and closes it with the "
            "result. Broker, worker and database are real; this program plays the PCs and the "
            "fleet's other programs for about 20 seconds."
        )
        with Agents(self._url, self._pace) as self._agents:
            self._screen.heading("1  A broker, manifests and the worker")
            self._show_broker()
            options = ("--create-stream", "--migrate", "--upkeep-every", "1s")
            with self._start(*options) as self._worker:
                self._worker.until(self._worker.pulls, "the worker pulls")
                with Tables(self._database) as self._tables:
                    self._show_set_up()
                    self._screen.heading("2  The PCs start scripts, and the worker follows")
                    self._start_runs()
                    self._screen.heading("3  The scripts end")
                    self._end_runs()
                    self._screen.heading("4  Two PCs send no result")
                    self._give_up_runs()
                    self._screen.heading(
                        "5  The worker stops, the PCs continue, a second worker starts"
                    )
                    self._stop_and_continue()
                    self._screen.heading("6  What the tables contain now")
                    self._look()
        show_where_to_look(self._screen, self._database, self._log)

    # --- step 1 ---

    def _show_broker(self) -> None:
        self._agents.set_up()
        manifests = ", ".join(f"{name} {timeout}" for name, timeout in MANIFESTS.items())
        self._say(f"nats-server on {self._url} stores its data in a temporary folder.")
        self._say(f"Manifests in the bucket jobs, with their timeouts: {manifests}.")

    def _show_set_up(self) -> None:
        self._say(
            "The worker created the tables, the consumers and the streams EVENTS and RESULTS."
        )

    # --- step 2 ---

    def _start_runs(self) -> None:
        fleet = self._fleet
        self._columns("what the PCs publish", "events", "rows", "after", "execution ok/failed")
        inventory = fleet.broadcast(self._deploy("inventory-0520", "inventory", 16))
        self._inventory, self._skipped = inventory[:15], inventory[15:]
        self._act("inventory starts on 15 PCs", self._inventory, 1.2)
        updates = fleet.broadcast(self._deploy("updates-0520", "install-updates", 48))
        self._act("updates start on 48 PCs", updates, 2.0)
        self._backups = fleet.broadcast(self._deploy("backups-0520", "backup-profiles", 24))
        self._act("backups start on 24 PCs", self._backups, 1.2)
        unknown = fleet.broadcast(self._deploy("cleanup-0520", UNKNOWN_MANIFEST, 6))
        self._act("with an unknown manifest", unknown, 0.8)
        self._deploy("updates-0521", "install-updates", 48)  # no PC starts it
        self._act("ad-hoc runs, no execution", fleet.ad_hoc(12), 1.0)
        self._act("hours late, from outboxes", fleet.ad_hoc(8, late=True), 0.8)
        for name, pcs, status in (("inventory", 4, "completed"), ("backup-profiles", 2, "expired")):
            ended = self._deploy(f"{name}-0519", name, pcs, status)
            self._act(f"late, execution {status}", fleet.broadcast(ended, hours_late=20), 0.4)
        again = [*self._inventory[:6], *fleet.random.sample(updates, 8)]
        self._act("starts published twice", again, 0.8)
        self._act("seven malformed starts", fleet.malformed(), 1.0)

    # --- step 3 ---

    def _end_runs(self) -> None:
        fleet, inventory = self._fleet, self._inventory
        self._columns("what the PCs publish", "events", "rows", "after", "execution ok/failed")
        self._act("inventory succeeds on 12", fleet.results(inventory[:12]), 1.0)
        failed = fleet.results(inventory[12:14], exit_code=3, stderr="no space left")
        self._act("it fails on two", failed, 0.4)
        skipped = fleet.results(self._skipped, exit_code=125, skipped=True, stdout="")
        self._act("one PC skips it, no start", skipped, 0.3)
        self._act("one has 300 KiB of output", self._long_output(inventory[14:]), 0.3)
        overtaken = fleet.ad_hoc(3)
        self._act("results before starts", fleet.results(overtaken), 0.4)
        self._finished = self._tables.finished_runs()
        self._act("and their starts", overtaken, 0.4)
        self._act("a second, different result", fleet.results(inventory[:5], exit_code=1), 0.4)
        self._act("a start after its result", inventory[:1], 0.2)
        self._act("a malformed result", [fleet.malformed_result()], 0.2)

    def _long_output(self, starts: list[Event]) -> list[Event]:
        """Return results whose output is too long for a message, so it is in the object store."""
        key = f"{(starts[0].members or {})['request_id']}/stdout"
        self._agents.upload(key, "package 1.0.0\n" * (300 * 1024 // 14))
        return self._fleet.results(starts, stdout="", stdout_object=key)

    # --- step 4 ---

    def _give_up_runs(self) -> None:
        """Let the deadlines of two runs pass; then one of their results comes after all."""
        silent = self._backups[:2]
        ids = [str((event.members or {})["result_id"]) for event in silent]
        self._reaped.update(ids)
        self._say(
            "Two PCs that run backup-profiles are switched off. Their deadline is in 90 minutes, "
            "so the demo moves it into the past with SQL, as if that time had gone by:"
        )
        self._print("    UPDATE execution_results SET expires_at = recorded_at WHERE …", "bold")
        before = self._tables.state(silent)
        self._tables.pass_deadline(ids)
        self._worker.until(lambda: self._tables.counts().reaped == len(ids), "runs given up")
        counted = f"{before} → {self._tables.state(silent)}"
        self._say(
            "No result of theirs waits in the stream either. So the worker gave both runs up with "
            f"exit code -1, and counted them as failed: {counted}."
        )
        self._say("One of the two had only been offline. Its result arrives after all:")
        self._act("a late result", self._fleet.results(silent[:1]), 0.3)

    def _act(self, what: str, events: list[Event], seconds: float) -> None:
        """Publish events, wait until they are in the tables and acked, and print what changed."""
        tables, before = self._tables, self._tables.counts()
        was = tables.state(events)
        self._agents.play(events, seconds=seconds)
        published = time.monotonic()
        self._worker.until(self._in_the_tables, f"rows of {what!r}")
        after = f"{(time.monotonic() - published) * 1000:.0f} ms"
        self._worker.until(self._agents.has_nothing_left, f"acks of {what!r}")
        changed = [now - then for now, then in zip(tables.counts(), before, strict=True)]
        words = ("new", "ended", "given up", "rejected")
        rows = ", ".join(f"{n} {word}" for n, word in zip(changed, words, strict=True) if n > 0)
        state = tables.state(events)
        kept = "" if state == "" else f"still {state}"
        change = f"→ {state}" if was != state else kept
        self._columns(what, str(len(events)), rows or "none", after if rows else "", change)

    def _in_the_tables(self) -> bool:
        counts, agents = self._tables.counts(), self._agents
        return (
            counts.runs >= len(agents.result_ids)
            and counts.finished >= len(agents.results.first)
            and counts.rejected >= len(agents.malformed)
        )

    # --- step 5 ---

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
        self._say("The worker gets SIGTERM. The PCs continue, and rotate-logs ends.", "bold")
        self._worker.stop()
        again = fleet.random.sample(wave[:middle], 12)
        agents.play(fleet.shuffled(wave[middle:], again), seconds=1.8)
        agents.play(fleet.results(rotation), seconds=0.6)
        self._worker.wait()
        pending, ack_pending = agents.not_acked()
        self._say(
            f"It exited with 0. The broker has {pending} pending messages, and {ack_pending} that "
            "were delivered and not acked."
        )
        with self._start("--until-idle") as second:
            second.wait()
        self._say(
            "The second worker projected the rest and exited with 0: rotate-logs is now "
            f"{self._tables.state(rotation)}."
        )

    # --- step 6 ---

    def _look(self) -> None:
        agents, tables = self._agents, self._tables
        self._say(
            "The deadline of a run is the time at which the broker stored its start, plus the "
            "timeout of its manifest, plus half the timeout and at least 2 minutes."
        )
        self._print("")
        show_tables(self._screen.console, tables)
        wrong = problems(
            *(agents, tables),
            finished=self._finished,
            reaped=self._reaped,
            expected=self._executions,
        )
        if wrong:
            raise DemoFailed("\n".join(["the tables are wrong", *sums(agents, tables), *wrong]))
        for line in sums(agents, tables):
            self._say(f"✓ {line}.", "bold green")
        self._say(
            "✓ Compared one by one: every start and result has its row, each row the first result "
            "that was published for it, each execution counts every run once, and every message is "
            "acked.",
            "green",
        )
        self._print("")

    # --- helpers ---

    def _start(self, *options: str) -> Worker:
        self._print(f"\n  $ scripts/projector run {' '.join(options)}", "bold")
        place = ["--nats", self._url, "--database", f"sqlite:///{self._database}"]
        form = ["--log-level", "info", "--log-format", "text"]
        arguments = ["run", *place, *options, *form]
        return self._processes.start(lambda: Worker(arguments, self._log, self._screen.log))

    def _deploy(self, exec_id: str, job_id: str, pcs: int, status: str = "pending") -> Execution:
        execution = self._fleet.execution(exec_id, job_id, pcs, status)
        self._executions.append(execution)
        self._tables.deploy(execution)
        return execution

    def _columns(self, *cells: str) -> None:
        what, events, rows, after, execution = cells
        self._print(f"  {what:<26}{events:>6}  {rows:<14}{after:>8}  {execution}".rstrip())
