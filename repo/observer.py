"""What the database reports to an observer, in the thread where it happens."""


class Observer:
    """Ignores every report. Methods must be cheap and must not raise."""

    def writing(self) -> None:
        """Note that a transaction has the write lock; from now on only the disk can hold it up."""

    def written(self) -> None:
        """Note that the transaction has ended, whether it was committed or not."""

    def committed(self, seconds: float) -> None:
        """Note how long the commit of a write transaction took."""

    def locked(self) -> None:
        """Note that an attempt met the lock of another connection."""

    def retrying(self) -> None:
        """Note that the attempt is repeated."""


NOBODY = Observer()
