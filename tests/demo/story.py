"""The story in four steps, each with its heading: set up, play, stop and go on, look."""

from pathlib import Path
from typing import Any

from tests.demo.agents import Agents, connected
from tests.demo.fleet import MANIFESTS, PCS, UNKNOWN_MANIFEST, Execution, Fleet
from tests.demo.process import DemoFailed, Worker
from tests.demo.report import problems, show_tables, show_where_to_look, sums
from tests.demo.screen import Screen
from tests.demo.stage import Stage
from tests.demo.tables import Rows, Tables, opened
from tests.support.nats_server import NatsServer

_TOTALS = ("messages", "batches", "runs_inserted", "runs_duplicate", "rejected", "naks")


class Story:
    """Tells it once."""

    def __init__(self, screen: Screen, folder: Path, server: NatsServer, pace: float) -> None:
        self._screen = screen
        self._database = folder / "projector.db"
        self._log = folder / "worker.log"
        self._server = server
        self._pace = pace
        self._fleet = Fleet()
        self._executions: list[Execution] = []
        self._finished: Rows = {}

    async def tell(self) -> None:
        """Play everything; raises DemoFailed if something is not as it must be."""
        screen = self._screen
        screen.say("start-projector: what is running in the fleet right now?", "bold")
        screen.say(
            f"{len(PCS)} PCs start scripts and publish each start; the worker turns the starts "
            "into rows of what is in flight, with deadlines. Broker, worker and database are real; "
            "this program plays the PCs and the fleet's other programs, for about 15 seconds."
        )
        async with connected(self._server.url, pace=self._pace) as agents:
            screen.heading("1  A broker, manifests, and the worker")
            await self._show_broker(agents)
            async with self._worker("--create-stream", "--migrate") as worker:
                await worker.until(lambda: worker.logged("pull.started"), "the worker pulls")
                with opened(self._database) as tables:
                    await self._show_set_up(agents)
                    screen.heading("2  The PCs start scripts, the worker follows")
                    await self._play(Stage(screen, agents, tables, worker))
                    screen.heading("3  The worker is stopped, the PCs go on, a successor comes")
                    await self._stop_and_go_on(agents, tables, worker)
                    screen.heading("4  What the tables say now")
                    await self._look(agents, tables)
        show_where_to_look(screen.console, self._database, self._log)

    # --- step 1 ---

    async def _show_broker(self, agents: Agents) -> None:
        await agents.register_manifests()
        self._screen.say(f"nats-server on {self._server.url}, its store in a temporary folder.")
        manifests = ", ".join(f"{name} {timeout}" for name, timeout in MANIFESTS.items())
        self._screen.say(f"Manifests in the bucket jobs, with their timeouts: {manifests}.")

    async def _show_set_up(self, agents: Agents) -> None:
        stream = (await agents.stream()).config
        age, size = (stream.max_age or 0) / 86_400, (stream.max_bytes or 0) >> 20
        self._screen.say(
            f"The worker made the tables, the consumer, and the stream {stream.name}: "
            f"{', '.join(stream.subjects or [])}, kept {age:.0f} days, at most {size} MiB."
        )

    # --- step 2 ---

    async def _play(self, stage: Stage) -> None:
        fleet, tables = self._fleet, stage.tables
        stage.open()
        inventory = fleet.broadcast(self._deploy(tables, "inventory-0520", "inventory", 16))
        await stage.play("inventory to 16 PCs", inventory, seconds=1.2)
        updates = fleet.broadcast(self._deploy(tables, "updates-0520", "install-updates", 48))
        await stage.play("install-updates to 48 PCs", updates, seconds=2.0)
        backups = fleet.broadcast(self._deploy(tables, "backups-0520", "backup-profiles", 24))
        await stage.play("backup-profiles to 24 PCs", backups, seconds=1.2)
        unknown = fleet.broadcast(self._deploy(tables, "cleanup-0520", UNKNOWN_MANIFEST, 6))
        await stage.play("old-cleanup, unknown manifest", unknown, seconds=0.8)
        self._deploy(tables, "updates-0521", "install-updates", 48)  # no PC starts it
        await stage.play("ad-hoc runs, no execution", fleet.ad_hoc(12), seconds=1.0)
        await stage.play("hours late, from outboxes", fleet.ad_hoc(8, late=True), seconds=0.8)
        for name, pcs, status in (("inventory", 4, "completed"), ("backup-profiles", 2, "expired")):
            ended = self._deploy(tables, f"{name}-0519", name, pcs, status)
            late = fleet.broadcast(ended, hours_late=20)
            await stage.play(f"late, execution {status}", late, seconds=0.4)
        # Another program writes results: of runs in flight, and of runs whose start is to come.
        overtaken = fleet.ad_hoc(3)
        tables.finish(inventory[:12])
        tables.write_results_first(overtaken)
        self._finished = tables.finished_runs()
        await stage.play("starts after their results", overtaken, seconds=0.4)
        again = [*inventory[:6], *fleet.some(updates, 8)]
        await stage.play("starts that were sent before", again, seconds=0.8)
        await stage.play("malformed, each differently", fleet.malformed(), seconds=1.0)

    # --- step 3 ---

    async def _stop_and_go_on(self, agents: Agents, tables: Tables, worker: Worker) -> None:
        fleet, screen = self._fleet, self._screen
        rotation = fleet.broadcast(self._deploy(tables, "rotation-0520", "rotate-logs", 36))
        outboxes = fleet.ad_hoc(180, late=True, site="lyon")
        wave = fleet.shuffled(rotation, outboxes)
        middle = len(wave) // 2
        screen.say(
            f"rotate-logs goes to {len(rotation)} PCs, and an outage in Lyon ends: "
            f"{len(outboxes)} starts of the last hours leave the outboxes there."
        )
        await agents.publish(wave[:middle], seconds=1.8)
        screen.say("Now SIGTERM to the worker. The PCs go on publishing.", "bold")
        worker.stop()
        again = fleet.some(wave[:middle], 12)
        await agents.publish(fleet.shuffled(wave[middle:], again), seconds=1.8)
        await worker.ended()
        self._show_end(worker)
        consumer = await agents.consumer()
        screen.say(
            f"The broker holds {consumer.num_pending} messages that nobody has read, and "
            f"{consumer.num_ack_pending} that were read and not settled."
        )
        async with self._worker("--until-idle") as successor:
            await successor.ended()
            self._show_end(successor)

    def _show_end(self, worker: Worker) -> None:
        counters = worker.counters()
        counts = ", ".join(f"{name.replace('_', ' ')} {counters.get(name, 0)}" for name in _TOTALS)
        self._screen.say(f"It has ended with exit code 0. In its own words: {counts}.")

    # --- step 4 ---

    async def _look(self, agents: Agents, tables: Tables) -> None:
        self._screen.say(
            "A run's deadline is the time at which the broker stored its start, plus the timeout "
            "of its manifest, plus half of that and at least 2 minutes."
        )
        self._screen.gap()
        show_tables(self._screen.console, tables)
        wrong = await problems(
            agents, tables, finished=self._finished, executions=self._expected(agents)
        )
        if wrong:
            raise DemoFailed("\n".join(["the tables are wrong", sums(agents, tables), *wrong]))
        self._screen.say(f"{sums(agents, tables)}.", "bold green", mark="✓")
        self._screen.say(
            f"Compared one by one: every published result_id has its row, {len(self._finished)} "
            "finished runs and all executions that had ended are as they were, and the broker "
            "holds nothing back.",
            "green",
            mark="✓",
        )
        self._screen.gap()

    def _expected(self, agents: Agents) -> list[dict[str, Any]]:
        """Return what the row of each execution should be, in the order of their ids."""
        started = {event.members["exec_id"] for _, event in agents.published if event.members}
        rows = [execution.row for execution in self._executions]
        for row in rows:
            if row["status"] == "pending" and row["exec_id"] in started:
                row["status"] = "running"
        return sorted(rows, key=lambda row: str(row["exec_id"]))

    # --- helpers ---

    def _worker(self, *options: str) -> Worker:
        self._screen.gap()
        self._screen.say(f"$ scripts/projector run {' '.join(options)}", "bold")
        place = ["--nats", self._server.url, "--database", f"sqlite:///{self._database}"]
        form = ["--log-level", "info", "--log-format", "text"]
        return Worker(["run", *place, *options, *form], self._log, self._screen.log)

    def _deploy(
        self, tables: Tables, exec_id: str, job_id: str, pcs: int, status: str = "pending"
    ) -> Execution:
        execution = self._fleet.execution(exec_id, job_id, pcs, status)
        self._executions.append(execution)
        tables.deploy(execution)
        return execution
