"""The options of a worker, which `run`, `check` and `config` take."""

from worker.cli import options
from worker.cli.options import SECONDS, Whole, flag, option, together

worker_options = together(
    options.servers,
    options.database,
    options.stream,
    options.consumer,
    options.bucket,
    options.projections,
    options.results_stream,
    options.results_consumer,
    options.output_bucket,
    flag("--create-stream", "Create a missing stream. Otherwise the worker waits for it."),
    flag(
        "--migrate", "Apply pending migrations at start. Otherwise the worker exits with code 78."
    ),
    flag("--until-idle", "Exit with code 0 as soon as no message is pending or ack pending."),
    option("--batch", Whole(1, 10_000), "Write at most this many messages in one transaction."),
    option("--threads", Whole(1, 64), "Use this many threads: one writes, the others decode."),
    option("--max-outstanding", Whole(1, 100_000), "Hold at most this many unacked messages."),
    option(
        *("--ack-wait", SECONDS),
        "Let the broker redeliver after this long without an ack. Used to create the consumer.",
    ),
    option(
        *("--max-ack-pending", Whole(1, 1_000_000)),
        "Let the broker deliver at most this many messages, for all workers together, before an "
        "ack. Used to create the consumer.",
    ),
    options.patience,
    option("--drain-timeout", SECONDS, "Wait this long for started batches when stopping."),
    option(
        "--upkeep-every",
        SECONDS,
        "Promote late executions, give up overdue runs and delete old rows at this interval.",
    ),
    options.retention,
    options.observability,
    options.credentials,
    options.logs("info"),
)
