"""What somebody outside may be told of the database, by the thread that it happens in."""


class Observer:
    """Takes note of nothing. Calls must be cheap, and may not raise."""

    def committing(self) -> None:
        """Note that a commit begins; it may hang for as long as the disk does."""

    def committed(self, seconds: float) -> None:
        """Take how long the commit of a write transaction took."""

    def locked(self) -> None:
        """Note that an attempt met somebody else's lock."""

    def retrying(self) -> None:
        """Note that it is tried again."""


NOBODY = Observer()
