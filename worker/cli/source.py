"""What `verify`, `rebuild` and `explain` share: the broker, the manifests, and the stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click

from worker.cli.output import told
from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.inspect import look_at_broker
from worker.jetstream.manifest_loader import read_manifests
from worker.jetstream.stream_reader import StreamReader
from worker.projections.manifests import ManifestCache
from worker.settings import Settings

without_deadlines_option = click.option(
    "--without-deadlines",
    is_flag=True,
    help="Do not read the manifests. Deadlines are not compared then; a run that is written gets "
    "none, and never will.",
)


class Reading(NamedTuple):
    """A stream to be read, and what was known of the consumer before.

    `settled` is the sequence up to which all is settled: 0 where there is no consumer.
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

    Raises BrokerError where the broker or the bucket cannot be read now, and ConfigurationError
    where there is no such stream or bucket; a bucket that cannot be read is added to `problems`
    instead, where they are given.
    """
    manifests = ManifestCache()
    with BrokerClient(settings) as visit:
        view = look_at_broker(visit, settings)
        if view.stream is None:
            raise ConfigurationError(f"there is no stream {settings.stream}")
        if not without_deadlines:
            _read_manifests(visit, settings, manifests, problems)
        settled = view.consumer.floor if view.consumer else 0
        last = view.stream.last_sequence
        with StreamReader(visit, settings.stream, last, since=since) as stream:
            yield Reading(stream, settled, manifests)


def _read_manifests(
    visit: BrokerClient, settings: Settings, manifests: ManifestCache, problems: list[str] | None
) -> None:
    if problems is None:
        with naming_without_deadlines():
            read_manifests(visit, settings.bucket, manifests)
        return
    try:
        read_manifests(visit, settings.bucket, manifests)
    except (BrokerError, ConfigurationError) as error:
        problems.append(told(error))


@contextmanager
def naming_without_deadlines() -> Iterator[None]:
    """Let the error of manifests that cannot be read name the option that does without them."""
    try:
        yield
    except (BrokerError, ConfigurationError) as error:
        raise type(error)(
            f"no deadlines can be computed, which --without-deadlines does without: {error}"
        ) from error.__cause__
