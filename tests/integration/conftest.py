"""The types of the shared fixtures, which the tests of this folder import from here."""

from tests.conftest import MakeServer, RunUntilIdle, StartWorker

__all__ = ["MakeServer", "RunUntilIdle", "StartWorker"]
