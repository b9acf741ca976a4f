"""Publish a start or a result, as an agent does.

python -m tests.demo.publish pc_id=me manifest_id=check-disk
python -m tests.demo.publish --result result_id=run-1 exit_code=3
"""

import json
import time
import uuid

import click
import nats.errors

from tests.support import events
from tests.support.broker import Broker
from worker.codec.timestamps import format_instant

_NUMBERS = ("exit_code", "skipped")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--nats",
    "url",
    envvar="PROJECTOR_NATS_URL",
    default="nats://127.0.0.1:4222",
    show_default=True,
    help="URL of the broker, or PROJECTOR_NATS_URL.",
)
@click.option("--result", is_flag=True, help="Publish the result of a run instead of its start.")
@click.argument("members", metavar="[MEMBER=VALUE]...", nargs=-1)
def main(url: str, result: bool, members: tuple[str, ...]) -> None:
    """Publish the start of a run, or its result, and print the event.

    Members that are not given have values that fit: a new result_id, the manifest check-disk, the
    time of now. A result belongs to the run whose result_id it has.
    """
    for member in members:
        if not member.partition("=")[1]:
            raise click.UsageError(f"expected MEMBER=VALUE, got {member}")
    event = _event(dict(member.split("=", 1) for member in members), result)
    subject = f"results.{event['request_id']}" if result else events.subject(event)
    text = json.dumps(event, ensure_ascii=False)
    try:
        with Broker(url, allow_reconnect=False, connect_timeout=2) as broker:
            sequence = broker.publish(text.encode(), subject=subject)
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise click.ClickException(f"{url}: {error or type(error).__name__}") from error
    click.echo(f"published as message {sequence} to {subject}:\n{text}")


def _event(given: dict[str, str], is_result: bool) -> dict[str, object]:
    now = format_instant(time.time_ns()).replace("+00:00", "Z")
    own = {"request_id": str(uuid.uuid4()), "pc_id": "my-pc", "manifest_id": "check-disk"}
    values = {name: json.loads(one) if name in _NUMBERS else one for name, one in given.items()}
    if is_result:
        return events.result(**{**own, "exec_id": None, "finished_at": now, **values})
    return events.start(**{**own, "exec_id": "", "started_at": now, **values})


if __name__ == "__main__":
    main()
