"""How the rows of one kind of message are written, as a value: the machinery names no table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from repo import Connection
from repo.rejected import Key

Row = TypeVar("Row")


class PromotionFailure(NamedTuple):
    """An execution that could not be promoted, and why."""

    exec_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Writer(Generic[Row]):
    """How rows are inserted and what follows. All functions run inside the caller's transaction.

    `insert_all` and `insert` return how many rows are new; an existing row is left unchanged. They
    raise RowRejected. `probes` returns rows to try if a batch was rejected entirely, made of a
    rejected row and of the last row that was inserted, if any. `delete_rejected` deletes a
    message's rejected event if its row exists, and returns whether it was deleted. `parents`
    returns the ids of the rows' parents, each once; `promote` promotes the parents with these ids.
    """

    insert_all: Callable[[Connection, Sequence[Row]], int]
    insert: Callable[[Connection, Row], int]
    probes: Callable[[Row, Row | None], list[Row]]
    delete_rejected: Callable[[Connection, Key, Row], bool]
    parents: Callable[[Sequence[Row]], list[str]]
    promote: Callable[[Connection, Sequence[str]], None]
