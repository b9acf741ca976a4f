"""The names of the shared fixtures' types, which the tests of this folder import from here."""

from tests.conftest import MakeServer, StartWorker

__all__ = ["MakeServer", "StartWorker"]
