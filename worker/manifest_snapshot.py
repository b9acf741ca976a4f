"""The manifests once, for a command that projects without a broker thread: connect, read, leave."""

import asyncio
from collections.abc import Callable

from worker.connection import API_TIMEOUT, close, connect
from worker.logs import Repeats
from worker.manifest_watch import ManifestWatch
from worker.manifests import ManifestCache
from worker.readiness import Readiness
from worker.settings import Settings
from worker.stopping import cancel

_REPEAT_WARNING_AFTER = 60.0


def load_manifests(settings: Settings, cache: ManifestCache) -> None:
    """Fill the cache with all manifests that the bucket holds now; takes a minute at the most.

    Raises BrokerFault where the broker or the bucket cannot be read now, and ConfigurationError
    where that is for a person to mend.
    """
    asyncio.run(_load(settings, cache))


async def _load(settings: Settings, cache: ManifestCache) -> None:
    fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(error: BaseException) -> None:
        if not fatal.done():
            fatal.set_exception(error)

    reading = asyncio.create_task(_read(settings, cache, end))
    try:
        await asyncio.wait({reading, fatal}, return_when=asyncio.FIRST_COMPLETED)
        # What no retry can mend comes by the callback, and says more than what it leads to.
        (fatal if fatal.done() else reading).result()
    finally:
        await cancel(reading)


async def _read(
    settings: Settings, cache: ManifestCache, fatal: Callable[[BaseException], None]
) -> None:
    connection = await connect(settings, fatal, Repeats(_REPEAT_WARNING_AFTER), Readiness())
    try:
        js = connection.jetstream(timeout=API_TIMEOUT)
        await ManifestWatch(settings.bucket, cache).load(js)
    finally:
        await close(connection)
