"""What has to be so before messages are projected: for starts, that the manifests are read."""

from typing import Protocol


class Prerequisite(Protocol):
    """Awaited by a dispatcher for what waits, while other batches are written."""

    @property
    def is_fresh(self) -> bool:
        """Whether what was reached last still holds."""

    @property
    def may_try(self) -> bool:
        """Whether to dispatch before it is reached: the pool returns what has to wait."""

    @property
    def reached(self) -> int:
        """Up to which instant it is known to be reached for what the broker stored."""

    async def catch_up(self, stored_at: int) -> None:
        """Return when messages that the broker stored up to an instant may be projected."""

    async def be_fresh_or_empty(self) -> None:
        """Return within about a second: what waits is projected now, at a stop."""

    def refresh(self) -> None:
        """Look now, without waiting: the client may have reconnected."""
