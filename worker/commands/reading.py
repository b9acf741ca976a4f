"""What `verify`, `rebuild` and `explain` share: the broker, the manifests, and the stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click

from worker.broker_view import look_at_broker
from worker.commands.output import told
from worker.errors import BrokerFault, ConfigurationError
from worker.manifest_snapshot import read_manifests
from worker.manifests import ManifestCache
from worker.settings import Settings
from worker.stream_reader import StreamReader
from worker.visit import Visit

without_deadlines_option = click.option(
    "--without-deadlines",
    is_flag=True,
    help="Do not read the manifests. Deadlines are not compared then; a run that is written gets "
    "none, and never will.",
)


class Reading(NamedTuple):
    """A stream to be read, and what was known of the durable before.

    `settled` is the sequence up to which all is settled: 0 where there is no durable.
    """

    stream: StreamReader
    settled: int
    manifests: ManifestCache


@contextmanager
def reading(
    settings: Settings,
    *,
    since: int | None = None,
    without_deadlines: bool = False,
    problems: list[str] | None = None,
) -> Iterator[Reading]:
    """Open a stream for reading.

    Raises BrokerFault where the broker or the bucket cannot be read now, and ConfigurationError
    where there is no such stream or bucket; a bucket that cannot be read is added to `problems`
    instead, where they are given.
    """
    manifests = ManifestCache()
    with Visit(settings) as visit:
        view = look_at_broker(visit, settings)
        if view.stream is None:
            raise ConfigurationError(f"there is no stream {settings.stream}")
        if not without_deadlines:
            _read_manifests(visit, settings, manifests, problems)
        settled = view.durable.floor if view.durable else 0
        last = view.stream.last_sequence
        with StreamReader(visit, settings.stream, last, since=since) as stream:
            yield Reading(stream, settled, manifests)


def _read_manifests(
    visit: Visit, settings: Settings, manifests: ManifestCache, problems: list[str] | None
) -> None:
    if problems is None:
        with naming_without_deadlines():
            read_manifests(visit, settings.bucket, manifests)
        return
    try:
        read_manifests(visit, settings.bucket, manifests)
    except (BrokerFault, ConfigurationError) as error:
        problems.append(told(error))


@contextmanager
def naming_without_deadlines() -> Iterator[None]:
    """Let the error of manifests that cannot be read name the option that does without them."""
    try:
        yield
    except (BrokerFault, ConfigurationError) as error:
        raise type(error)(
            f"no deadlines can be computed, which --without-deadlines does without: {error}"
        ) from error.__cause__
