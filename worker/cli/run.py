"""`projector run`: the worker."""

import logging
from typing import Any

from worker.cli.context import chosen_settings
from worker.cli.doubts import find_doubts
from worker.cli.help import command
from worker.cli.worker_options import worker_options
from worker.errors import SettingError
from worker.projections.starts import STARTS
from worker.service import Service

log = logging.getLogger(__name__)


@command(short_help="Run the worker.")
@worker_options
def run(**chosen: Any) -> int:
    """Pull events from JetStream, write them to the database, and ack them after the commit.

    Every option can be set by its variable instead. The worker waits for an unavailable broker or
    database, and runs until a signal stops it.

    \b
    projector run --migrate --metrics-port 9464
    projector run --database sqlite:////tmp/try.db --migrate --create-stream --until-idle

    Exit code 0: the worker drained and stopped, or was idle with --until-idle.
    """
    doubts = find_doubts(chosen)
    settings = chosen_settings(chosen)
    if STARTS not in settings.chosen:
        problem = "expected starts as well as results: each result waits for the start of its run"
        raise SettingError("--projection", problem)
    for doubt in doubts:
        log.warning("settings.doubtful", extra={"doubt": doubt})
    return Service(settings).run()
