"""The named statements of `sql/sqlite/queries/`, loaded once when this package is imported."""

import re
from importlib.resources import files

NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def _load() -> dict[str, str]:
    statements: dict[str, str] = {}
    for file in sorted(
        files("sql").joinpath("sqlite", "queries").iterdir(), key=lambda file: file.name
    ):
        if not file.name.endswith(".sql"):
            continue
        _, *parts = NAME.split(file.read_text("utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in statements:
                raise ValueError(
                    f"sql/sqlite/queries/{file.name}: the name {name} is taken already"
                )
            statements[name] = text.strip()
    return statements


STATEMENTS = _load()


def statement(name: str) -> str:
    """Return the text of a named statement.

    Modules ask when they are imported, so a name that no file has fails at start (KeyError), not at
    its first use.
    """
    return STATEMENTS[name]
