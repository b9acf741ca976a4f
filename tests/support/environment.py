"""The environment of processes that are not ours, such as yoyo's own command."""

import os


def others_environment() -> dict[str, str]:
    """Return this process's variables without PYTHONWARNINGS, and with a USER for yoyo to note.

    yoyo's SQLite adapters warn on Python 3.12 and newer, and so does its rollback of one migration:
    what is an error in our own processes is none in theirs.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return {**kept, "USER": "tester"}
