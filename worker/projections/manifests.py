"""The timeouts of all manifests, in memory. Written by the consumer thread, read by the pool."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.codec.durations import parse_duration
from worker.codec.jsontext import kind_of, parse_json
from worker.codec.timestamps import NANOSECONDS, format_instant, second_text, with_fraction
from worker.projections.deadline import deadline

# Why a deadline is missing. These words are counted and logged.
MANIFESTS_UNAVAILABLE = "manifests_unavailable"
MANIFEST_UNKNOWN = "manifest_unknown"
MANIFEST_UNREADABLE = "manifest_unreadable"
TIMEOUT_MISSING = "timeout_missing"
TIMEOUT_INVALID = "timeout_invalid"
REASONS = (
    MANIFESTS_UNAVAILABLE,
    MANIFEST_UNKNOWN,
    MANIFEST_UNREADABLE,
    TIMEOUT_MISSING,
    TIMEOUT_INVALID,
)

# Of a run that was written without a deadline, though its manifest has a timeout by now.
RECOMPUTABLE = "recomputable"


@dataclass(frozen=True, slots=True)
class Timeout:
    """A manifest's `execute.timeout`, in nanoseconds."""

    nanoseconds: int


@dataclass(frozen=True, slots=True)
class NoTimeout:
    """Why a manifest has no timeout: one of the reasons above, and what was found instead."""

    reason: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One entry of the bucket at one revision; `put_at` is when it was put, an instant."""

    revision: int
    timeout: Timeout | NoTimeout
    put_at: int


class ManifestCache:
    """The manifests that the bucket holds; deleted ones leave no trace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._manifests: dict[str, Manifest] | None = None
        self._equal_at: float | None = None

    @property
    def age(self) -> float | None:
        """How long ago this was found equal to the bucket, in seconds; None without manifests."""
        equal_at = self._equal_at
        return None if equal_at is None else time.monotonic() - equal_at

    def timeout(self, manifest_id: str) -> Timeout | NoTimeout:
        """Return a manifest's timeout, or why it has none."""
        manifests = self._manifests  # one read needs no lock
        if manifests is None:
            return NoTimeout(MANIFESTS_UNAVAILABLE)
        manifest = manifests.get(manifest_id)
        return NoTimeout(MANIFEST_UNKNOWN) if manifest is None else manifest.timeout

    def count_reasons(self, runs: Mapping[str | None, int]) -> dict[str, int]:
        """Count runs without a deadline by why they would have none today, or RECOMPUTABLE.

        `runs` is how many there are of each manifest. Each reason is among the keys.
        """
        counts = dict.fromkeys((*REASONS, RECOMPUTABLE), 0)
        for manifest_id, number in runs.items():
            timeout = self.timeout(manifest_id or "")
            reason = timeout.reason if isinstance(timeout, NoTimeout) else RECOMPUTABLE
            counts[reason] += number
        return counts

    def replace(self, manifests: dict[str, Manifest]) -> None:
        """Replace everything at once: a reader never sees half of it."""
        with self._lock:
            self._manifests = dict(manifests)

    def confirm(self) -> None:
        """Note that this is equal to the bucket now."""
        self._equal_at = time.monotonic()

    def clear(self) -> None:
        """Forget everything: the bucket was deleted, or cannot be read."""
        with self._lock:
            self._manifests = None
            self._equal_at = None

    def apply(self, manifest_id: str, manifest: Manifest | None) -> None:
        """Apply one change; None is a key that was deleted."""
        with self._lock:
            if self._manifests is None:
                return
            if manifest is None:
                self._manifests.pop(manifest_id, None)
            else:
                self._manifests[manifest_id] = manifest

    def remove_below(self, revision: int) -> int:
        """Remove the manifests of lower revisions, which have expired; returns their number."""
        with self._lock:
            manifests = self._manifests or {}
            gone = [name for name, one in manifests.items() if one.revision < revision]
            for name in gone:
                del manifests[name]
            return len(gone)

    def find(self, manifest_id: str) -> Manifest | None:
        """Return a manifest's entry, or None."""
        with self._lock:
            return (self._manifests or {}).get(manifest_id)

    def without_timeout(self) -> list[str]:
        """Return the ids of the manifests whose timeout cannot be read, sorted."""
        with self._lock:
            manifests = self._manifests or {}
            return sorted(
                manifest_id
                for manifest_id, manifest in manifests.items()
                if isinstance(manifest.timeout, NoTimeout)
            )

    def __len__(self) -> int:
        with self._lock:
            return len(self._manifests or {})


class Deadlines:
    """Computes the deadlines of one batch, and counts the rows that get none, by reason."""

    def __init__(self, manifests: ManifestCache) -> None:
        self.missing: Counter[tuple[str, NoTimeout]] = Counter()
        self._manifests = manifests
        self._whole: dict[tuple[str, int], str] = {}

    def deadline(self, manifest_id: str, stored_at: int) -> str | None:
        """Return the deadline as stored text, or None where the manifest has no timeout.

        `stored_at` is when the broker stored the message, in nanoseconds since 1970.
        """
        second, fraction = divmod(stored_at, NANOSECONDS)
        whole = self._whole.get((manifest_id, second))
        if whole is not None:
            return with_fraction(whole, fraction)
        timeout = self._manifests.timeout(manifest_id)
        if isinstance(timeout, NoTimeout):
            self.missing[manifest_id, timeout] += 1
            return None
        first, last = (
            deadline(second * NANOSECONDS + rest, timeout.nanoseconds)
            for rest in (0, NANOSECONDS - 1)
        )
        # Not so for a timeout with a fraction, nor around the last instant of all.
        if first % NANOSECONDS == 0 and last == first + NANOSECONDS - 1:
            self._whole[manifest_id, second] = second_text(first // NANOSECONDS)
        return format_instant(deadline(stored_at, timeout.nanoseconds))


def read_timeout(value: bytes) -> Timeout | NoTimeout:
    """Return the timeout at `execute.timeout` of a manifest's JSON; other members are ignored."""
    try:
        manifest = parse_json(value)
    except ValueError as error:
        return NoTimeout(MANIFEST_UNREADABLE, str(error))
    text = _member(_member(manifest, "execute"), "timeout")
    if text is None:
        return NoTimeout(TIMEOUT_MISSING, "no execute.timeout")
    if not isinstance(text, str):
        return NoTimeout(
            TIMEOUT_INVALID, f"execute.timeout: expected a string, found {kind_of(text)}"
        )
    try:
        return Timeout(parse_duration(text))
    except ValueError as error:
        return NoTimeout(TIMEOUT_INVALID, f"execute.timeout: {error}: {text[:40]!a}")


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
