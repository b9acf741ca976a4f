import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.codec.timestamps import format_instant
from worker.projections import manifests
from worker.projections.deadline import deadline
from worker.projections.manifests import (
    Deadlines,
    Manifest,
    ManifestCache,
    NoTimeout,
    Timeout,
    read_timeout,
)

SECOND = 10**9
THIRTY = Manifest(1, Timeout(30 * SECOND), 0)


def with_timeout(timeout: object) -> bytes:
    return json.dumps({"execute": {"timeout": timeout}}).encode()


def reason(found: Timeout | NoTimeout) -> str:
    assert isinstance(found, NoTimeout)
    return found.reason


def cached(**snapshot: Manifest) -> ManifestCache:
    cache = ManifestCache()
    cache.replace(snapshot)
    return cache


def test_the_timeout_is_read_from_execute_timeout_and_all_other_members_are_ignored() -> None:
    assert read_timeout(with_timeout("0")) == Timeout(0)
    value = (
        b'{"timeout":"1h","id":"\\ud800","n":' + b"9" * 5000 + b',"execute":'
        b'{"timeout":"30s","shell":null,"Timeout":"2h","more":' + b"[" * 100 + b"]" * 100 + b"}}"
    )
    assert read_timeout(value) == Timeout(30 * SECOND)


UNREADABLE = [
    *(b"", b" ", b"{", b"30s", b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"[" * 100_000),
    *(with_timeout("30s")[:-1], b'{"execute":{"timeout":"30s"},"cpu":Infinity}'),
]
MISSING = [
    *("null", "[]", "1", '"30s"', "{}", '{"timeout":"30s"}', '{"Execute":{"timeout":"30s"}}'),
    *('{"execute":null}', '{"execute":"30s"}', '{"execute":["timeout"]}', '{"execute":{}}'),
    *('{"execute":{"timeout":null}}', '{"execute":{"Timeout":"30s"}}'),
]
INVALID = [
    *("", "30", "soon", "1.5", "1H", "30 s s", "\ud800", "\x00", "9" * 10_000, "99y" * 99 + "x"),
    *(30, 0, 1.5, True, False, [], ["30s"], {}, {"seconds": 30}),
]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *((value, manifests.MANIFEST_UNREADABLE) for value in UNREADABLE),
        *((text.encode(), manifests.TIMEOUT_MISSING) for text in MISSING),
        *((with_timeout(timeout), manifests.TIMEOUT_INVALID) for timeout in INVALID),
    ],
    ids=lambda value: ascii(value[:40]),
)
def test_a_manifest_without_a_usable_timeout_gives_the_reason(value: bytes, why: str) -> None:
    assert reason(read_timeout(value)) == why


nested = st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner))


@given(
    st.binary()
    | st.text().map(with_timeout)
    | nested.map(lambda value: json.dumps({"execute": value}).encode())
)
def test_any_manifest_gives_a_timeout_or_a_short_printable_problem(value: bytes) -> None:
    found = read_timeout(value)
    if isinstance(found, NoTimeout):
        assert found.reason in manifests.REASONS
        assert found.problem.isprintable()
        assert len(found.problem) < 500
    else:
        assert found.nanoseconds >= 0


def test_manifests_are_unavailable_without_a_snapshot_of_the_bucket() -> None:
    never_loaded, cleared = ManifestCache(), cached(job=THIRTY)
    cleared.clear()
    for cache in (never_loaded, cleared):
        cache.apply("job", THIRTY)
        assert reason(cache.timeout("job")) == manifests.MANIFESTS_UNAVAILABLE
        assert len(cache) == 0


def test_a_snapshot_replaces_all_manifests_even_if_it_is_empty() -> None:
    cache, problem = cached(old=THIRTY), NoTimeout(manifests.TIMEOUT_INVALID, "soon")
    snapshot = {"new": Manifest(1, problem, 0)}
    cache.replace(snapshot)
    snapshot.clear()  # the cache has its own copy
    assert cache.timeout("new") == problem
    assert reason(cache.timeout("old")) == manifests.MANIFEST_UNKNOWN
    cache.replace({})
    assert reason(cache.timeout("new")) == manifests.MANIFEST_UNKNOWN
    assert len(cache) == 0


def test_runs_without_a_deadline_are_counted_by_why_they_would_have_none_today() -> None:
    runs = {"fixed": 5, "bad": 3, "worse": 1, "nowhere": 2, None: 4}
    bad = Manifest(1, NoTimeout(manifests.TIMEOUT_INVALID), 0)
    counts = cached(fixed=THIRTY, bad=bad, worse=bad).count_reasons(runs)
    assert counts == {
        manifests.RECOMPUTABLE: 5,
        manifests.TIMEOUT_INVALID: 4,
        manifests.MANIFEST_UNKNOWN: 6,
        manifests.MANIFESTS_UNAVAILABLE: 0,
        manifests.MANIFEST_UNREADABLE: 0,
        manifests.TIMEOUT_MISSING: 0,
    }
    assert ManifestCache().count_reasons(runs)[manifests.MANIFESTS_UNAVAILABLE] == 15


def test_a_deleted_and_an_expired_manifest_leave_nothing_behind() -> None:
    old, new = Manifest(5, Timeout(1), 0), Manifest(7, Timeout(2), 0)
    cache = cached(deleted=old, expired=old, kept=new)
    cache.apply("deleted", None)
    cache.apply("deleted", None)
    assert cache.remove_below(6) == 1
    assert cache.remove_below(7) == 0
    assert [cache.find(name) for name in ("deleted", "expired", "kept")] == [None, None, new]
    cache.apply("deleted", new)
    assert cache.timeout("deleted") == Timeout(2)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3 * SECOND)), max_size=8),
    st.sampled_from([0, 30 * SECOND, 30 * SECOND + 1, 241 * SECOND, 2**64 * SECOND - 1]),
    st.sampled_from([0, 1_779_278_400 * SECOND, 253_402_300_799 * SECOND - 150 * SECOND]),
)
@example([("a", SECOND - 1), ("a", 0)], 30 * SECOND + 1, 253_402_300_649 * SECOND)
def test_runs_of_one_second_have_deadlines_of_their_own(
    stored: list[tuple[str, int]], timeout: int, since: int
) -> None:
    timeouts = {"a": timeout, "b": 60 * SECOND}
    cache = cached(**{name: Manifest(1, Timeout(one), 0) for name, one in timeouts.items()})
    deadlines = Deadlines(cache)
    for name, after in stored:
        expected = format_instant(deadline(since + after, timeouts[name]))
        assert deadlines.deadline(name, since + after) == expected
