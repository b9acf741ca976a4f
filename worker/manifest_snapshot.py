"""The manifests once, for a command that projects without a broker thread: connect, read, leave."""

from worker.connection import API_TIMEOUT
from worker.manifest_watch import ManifestWatch
from worker.manifests import ManifestCache
from worker.settings import Settings
from worker.visit import Visit


def load_manifests(settings: Settings, cache: ManifestCache) -> None:
    """Fill the cache with all manifests that the bucket holds now; takes a minute at the most.

    Raises BrokerFault where the broker or the bucket cannot be read now, and ConfigurationError
    where that is for a person to mend.
    """
    with Visit(settings) as visit:
        read_manifests(visit, settings.bucket, cache)


def read_manifests(visit: Visit, bucket: str, cache: ManifestCache) -> None:
    """Fill the cache over a connection that is there; raises as `load_manifests`."""
    js = visit.connection.jetstream(timeout=API_TIMEOUT)
    visit.do(ManifestWatch(bucket, cache).load(js))
