import os
import signal
import threading
import time

from worker.service import stopping_on_signals
from worker.supervisor import Supervisor


def test_the_first_error_is_kept_and_requests_the_stop() -> None:
    supervisor = Supervisor()
    first = KeyError("the cause")
    for error in (first, ValueError("a consequence")):
        supervisor.fail(error)
    assert supervisor.error is first
    assert supervisor.stop_requested


def test_a_requested_stop_has_no_error_and_ends_every_wait_at_once() -> None:
    supervisor = Supervisor()
    supervisor.request_stop()
    assert supervisor.error is None
    assert supervisor.stop_requested
    assert [supervisor.wait() for _ in range(3)] == [True, True, True]


def test_a_wait_without_a_stop_ends_after_its_time() -> None:
    supervisor = Supervisor()
    began = time.monotonic()
    assert not supervisor.wait(0.05)
    assert time.monotonic() - began >= 0.04


def wait(supervisor: Supervisor) -> None:
    """Wait for the stop, which must end the wait before its time."""
    began = time.monotonic()
    assert supervisor.wait(60)
    assert time.monotonic() - began < 30


def test_another_thread_ends_the_wait() -> None:
    supervisor = Supervisor()
    error = OSError("the disk is full")
    timer = threading.Timer(0.05, supervisor.fail, (error,))
    timer.start()
    wait(supervisor)
    timer.join()
    assert supervisor.error is error


def test_a_signal_handler_ends_the_wait_that_it_interrupts() -> None:
    supervisor = Supervisor()
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    with stopping_on_signals(supervisor.request_stop):
        timer.start()
        wait(supervisor)
        timer.join()
    assert signal.getsignal(signal.SIGTERM) is before
