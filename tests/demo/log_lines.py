"""The worker's log as the demo shows it: what fits a line of the terminal, and what matters."""

import re

# The fields to show; an event that is not listed shows all of its own.
_SHOWN = {
    "worker.starting": ("worker", "python", "sqlite"),
    "worker.started": ("server", "projections"),
    "worker.draining": (),
    "worker.stopped": ("exit_code", "messages", "runs_ended", "rejected"),
    "pull.started": ("stream", "pending", "ack_pending"),
    "catch_up.started": ("messages",),
    "catch_up.finished": ("messages", "messages_left"),
    "event.rejected": ("error",),
    "deadline.missing": ("reason", "runs"),
}
_LINE = re.compile(r"\S+T(\d\d:\d\d:\d\d)Z (\w+) +(\S+)(.*)")
# A value with spaces is a Python literal.
_FIELD = re.compile(r"""  ([\w-]+)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S*)""")


def shortened(line: str, width: int) -> str:
    """Return a line of the worker's text log as `12:00:00 event  name=value`, cut at a width."""
    found = _LINE.fullmatch(line)
    if found:
        time, level, event, rest = found.groups()
        fields = _FIELD.findall(rest)
        wanted = _SHOWN.get(event, [name for name, _ in fields])
        shown = [_field(name, value) for name, value in fields if name in wanted]
        mark = "" if level == "INFO" else f"{level} "
        line = "  ".join([f"{time} {mark}{event}", *shown])
    return line if len(line) <= width else line[: width - 1] + "…"


def _field(name: str, value: str) -> str:
    if name == "error":
        return value[1:-1] if value[:1] in ("'", '"') else value
    return f"{name}={value}"
