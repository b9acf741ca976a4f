"""The stop of the worker: whether it was requested, and the error that caused it."""

import contextlib
import queue


class Supervisor:
    """Keeps the first error of any thread and wakes the main thread to drain.

    Every method may be called from any thread, more than once, and before the worker runs;
    `request_stop` also from a signal handler.
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._stop_requested = False
        # A signal handler may put while the main thread waits. The lock of an Event is not
        # reentrant, so that would deadlock; a SimpleQueue is.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def error(self) -> BaseException | None:
        """The error that ended the worker; it decides the exit code. None after an orderly stop."""
        return self._error

    @property
    def stop_requested(self) -> bool:
        """Whether the worker is to drain and end."""
        return self._stop_requested

    def fail(self, error: BaseException) -> None:
        """Stop because of an error. Only the first one is kept: later ones are consequences."""
        if self._error is None:
            self._error = error
        self.request_stop()

    def request_stop(self) -> None:
        """Ask the main thread to drain and end."""
        self._stop_requested = True
        self._wake.put(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the stop, up to some seconds or for ever; returns whether it was requested."""
        if not self._stop_requested:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=seconds)
        return self._stop_requested
