"""The workers that share a consumer, as they announce themselves."""

from collections.abc import Iterable
from typing import NamedTuple


class Worker(NamedTuple):
    """One worker process. `started` is stored text, `database` a URL without a secret."""

    host: str
    pid: int
    version: str
    started: str
    state: str
    database: str


def merged(workers: Iterable[Worker]) -> tuple[Worker, ...]:
    """Return each process once, which announces itself for every stream, with all its states."""
    states: dict[Worker, set[str]] = {}
    for worker in workers:
        states.setdefault(worker._replace(state=""), set()).add(worker.state)
    found = sorted(states.items())
    return tuple(one._replace(state=", ".join(sorted(all_states))) for one, all_states in found)
