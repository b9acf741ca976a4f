"""The bar of `run --until-idle` on a terminal. Main thread."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor


def show(supervisor: Supervisor, status: WorkerStatus) -> None:
    """Show how many of the expected messages are projected, until the worker has to stop."""
    columns = (TextColumn("projecting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("projecting", total=None)
        is_over = False
        while not is_over:
            is_over = supervisor.wait(0.1)
            if status.expected is not None:
                done = status.counters["messages"]
                progress.update(task, completed=done, total=max(done, status.expected))
