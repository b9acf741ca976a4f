"""The manifests once, for a command that projects without a broker thread: connect, read, leave."""

from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API_TIMEOUT
from worker.jetstream.manifest_sync import ManifestWatch
from worker.projections.manifests import ManifestCache
from worker.settings import Settings


def load_manifests(settings: Settings, cache: ManifestCache) -> None:
    """Fill the cache with all manifests that the bucket holds now; takes a minute at the most.

    Raises BrokerError where the broker or the bucket cannot be read now, and ConfigurationError
    where that is for a person to mend.
    """
    with BrokerClient(settings) as visit:
        read_manifests(visit, settings.bucket, cache)


def read_manifests(visit: BrokerClient, bucket: str, cache: ManifestCache) -> None:
    """Fill the cache over a connection that is there; raises as `load_manifests`."""
    js = visit.connection.jetstream(timeout=API_TIMEOUT)
    visit.do(ManifestWatch(bucket, cache).load(js))
