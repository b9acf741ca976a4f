"""Subjects of JetStream's API, and subjects in the errors that the client library reports."""

import re

API = "$JS.API"  # of the server's own domain; see `in_domain`
_MOST_SUBJECTS = 1000
_QUOTED = re.compile(r'"[^"]*"')
# To announce the worker, to ask, or to answer another worker, whose inbox may have any prefix.
PRESENCE_DENIED = re.compile(
    r'permissions violation for (subscription to "\$SRV\.|publish to "(?!\$JS\.))',
    re.IGNORECASE,
)

# For notices of changed manifests.
NOTICES_DENIED = re.compile(
    r'permissions violation for subscription to "\$(KV|JS)\.', re.IGNORECASE
)


def in_domain(subject: str, domain: str | None) -> str:
    """Return a subject of the JetStream API as it is in a domain; any other as it is."""
    if domain is None or not subject.startswith(f"{API}."):
        return subject
    return f"$JS.{domain}.API{subject.removeprefix(API)}"


def manifest_changes(bucket: str) -> list[str]:
    """Return the subjects of what adds messages to a bucket, or takes them away, on request.

    The server's advisory about a deleted bucket may come after its answer to the client that
    deleted it.
    """
    stream = f"KV_{bucket}"
    changes = [f"{API}.STREAM.PURGE.{stream}", f"{API}.STREAM.DELETE.{stream}"]
    return [f"$KV.{bucket}.>", *changes, f"{API}.STREAM.MSG.DELETE.{stream}"]


def stream_changes(bucket: str) -> str:
    """Return the subject of the server's advisories about a bucket: created, deleted, restored."""
    return f"$JS.EVENT.ADVISORY.STREAM.*.KV_{bucket}"


def readings(bucket: str) -> str:
    """Return the subject on which the server announces consumers that read a bucket."""
    return f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.KV_{bucket}.*"


def without_subjects(error: str) -> str:
    """Return an error without the subjects in it, which may differ each time."""
    return _QUOTED.sub("", error)


class Spellings:
    """How subjects are spelled: the library reports them lower-cased."""

    def __init__(self) -> None:
        self._subjects: dict[str, str] = {}

    def note(self, subject: str) -> None:
        if len(self._subjects) >= _MOST_SUBJECTS:
            self._subjects.clear()
        self._subjects[subject.lower()] = subject

    def restored(self, error: str) -> str:
        """Return an error with its subjects as they are spelled."""
        return _QUOTED.sub(self._restored, error)

    def _restored(self, quoted: re.Match[str]) -> str:
        subject = quoted[0].strip('"')
        return f'"{self._subjects.get(subject, subject)}"'
