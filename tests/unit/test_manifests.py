import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.projections import manifests
from worker.projections.manifests import (
    Manifest,
    ManifestCache,
    NoTimeout,
    Timeout,
    put_later,
    read_timeout,
)

SECOND = 10**9
THIRTY = Manifest(1, Timeout(30 * SECOND))


def with_timeout(timeout: Any) -> bytes:
    return json.dumps({"execute": {"timeout": timeout}}).encode()


def problem(value: bytes) -> tuple[str, str]:
    found = read_timeout(value)
    assert isinstance(found, NoTimeout)
    return found.reason, found.problem


def reason(cache: ManifestCache, manifest_id: str) -> str:
    found = cache.timeout(manifest_id)
    assert isinstance(found, NoTimeout)
    return found.reason


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("60s", 60), ("300s", 300), ("1h", 3600), ("2h 30m", 9000)]
)
def test_a_timeout_is_read_at_execute_timeout(text: str, seconds: int) -> None:
    assert read_timeout(with_timeout(text)) == Timeout(seconds * SECOND)


def test_a_timeout_of_zero_is_a_timeout() -> None:
    assert read_timeout(with_timeout("0")) == Timeout(0)


def test_all_other_members_of_a_manifest_are_ignored() -> None:
    value = (
        b'{"timeout":"1h","id":"\\ud800","n":' + b"9" * 5000 + b',"execute":'
        b'{"timeout":"30s","shell":null,"Timeout":"2h","more":' + b"[" * 100 + b"]" * 100 + b"}}"
    )
    assert read_timeout(value) == Timeout(30 * SECOND)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b"{", b"30s", b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"[" * 100_000),
        with_timeout("30s")[:-1],
        b'{"execute":{"timeout":"30s"},"cpu":Infinity}',
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_a_manifest_that_is_no_json_is_unreadable(value: bytes) -> None:
    assert problem(value)[0] == manifests.MANIFEST_UNREADABLE


@pytest.mark.parametrize(
    "value",
    [
        *("null", "[]", "1", '"30s"', "{}", '{"timeout":"30s"}', '{"Execute":{"timeout":"30s"}}'),
        *('{"execute":null}', '{"execute":"30s"}', '{"execute":["timeout"]}', '{"execute":{}}'),
        *('{"execute":{"timeout":null}}', '{"execute":{"Timeout":"30s"}}'),
    ],
)
def test_a_manifest_without_a_timeout_says_so(value: str) -> None:
    assert problem(value.encode())[0] == manifests.TIMEOUT_MISSING


@pytest.mark.parametrize(
    "timeout",
    ["", "30", "soon", "1.5", "1H", "30 s s", "\ud800", "\x00", "9" * 10_000, "99y" * 99 + "x"],
)
def test_a_timeout_text_that_does_not_parse_is_invalid(timeout: str) -> None:
    assert problem(with_timeout(timeout))[0] == manifests.TIMEOUT_INVALID


@pytest.mark.parametrize("timeout", [30, 0, 1.5, True, False, [], ["30s"], {}, {"seconds": 30}])
def test_a_timeout_that_is_no_string_is_invalid(timeout: object) -> None:
    assert problem(with_timeout(timeout))[0] == manifests.TIMEOUT_INVALID


@settings(deadline=None)
@given(
    st.binary()
    | st.text().map(with_timeout)
    | st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner)).map(
        lambda value: json.dumps({"execute": value}).encode()
    )
)
def test_no_manifest_ever_stops_the_worker(value: bytes) -> None:
    found = read_timeout(value)
    if isinstance(found, NoTimeout):
        assert found.reason in manifests.REASONS
        assert found.problem.isprintable()
        assert len(found.problem) < 500
    else:
        assert found.nanoseconds >= 0


def test_before_the_first_snapshot_manifests_are_unavailable() -> None:
    cache = ManifestCache()
    assert reason(cache, "job") == manifests.MANIFESTS_UNAVAILABLE
    cache.apply("job", THIRTY)
    assert reason(cache, "job") == manifests.MANIFESTS_UNAVAILABLE
    assert len(cache) == 0


def test_a_snapshot_replaces_all_that_was_known() -> None:
    cache = ManifestCache()
    cache.replace({"old": THIRTY})
    cache.replace({"new": THIRTY})
    assert cache.timeout("new") == Timeout(30 * SECOND)
    assert reason(cache, "old") == manifests.MANIFEST_UNKNOWN
    assert len(cache) == 1


def test_an_empty_snapshot_is_one() -> None:
    cache = ManifestCache()
    cache.replace({})
    assert reason(cache, "job") == manifests.MANIFEST_UNKNOWN


def test_a_snapshot_belongs_to_the_cache_alone() -> None:
    cache = ManifestCache()
    snapshot = {"job": THIRTY}
    cache.replace(snapshot)
    snapshot.clear()
    cache.apply("other", THIRTY)
    assert len(cache) == 2
    assert snapshot == {}


def test_a_change_counts_if_its_revision_is_higher() -> None:
    cache = ManifestCache()
    cache.replace({"job": Manifest(5, Timeout(1))})
    cache.apply("job", Manifest(4, Timeout(2)))
    assert cache.timeout("job") == Timeout(1)
    cache.apply("job", Manifest(6, Timeout(3)))
    assert cache.timeout("job") == Timeout(3)


def test_a_deleted_key_leaves_the_cache_and_an_older_value_does_not_bring_it_back() -> None:
    cache = ManifestCache()
    cache.replace({"job": Manifest(5, Timeout(1))})
    cache.apply("job", Manifest(7, None))
    assert reason(cache, "job") == manifests.MANIFEST_UNKNOWN
    assert len(cache) == 0
    cache.apply("job", Manifest(6, Timeout(2)))
    assert reason(cache, "job") == manifests.MANIFEST_UNKNOWN
    cache.apply("job", Manifest(8, Timeout(3)))
    assert cache.timeout("job") == Timeout(3)


def test_a_manifest_without_a_usable_timeout_keeps_its_own_reason() -> None:
    cache = ManifestCache()
    cache.replace({"job": Manifest(1, NoTimeout(manifests.TIMEOUT_INVALID, "soon"))})
    assert cache.timeout("job") == NoTimeout(manifests.TIMEOUT_INVALID, "soon")


def test_a_bucket_that_is_gone_leaves_nothing() -> None:
    cache = ManifestCache()
    cache.replace({"job": THIRTY})
    cache.clear()
    assert reason(cache, "job") == manifests.MANIFESTS_UNAVAILABLE
    assert len(cache) == 0


@settings(deadline=None)
@given(st.permutations(range(1, 7)))
def test_changes_in_any_order_end_with_the_highest_revision(revisions: list[int]) -> None:
    known: dict[str, Manifest] = {}
    for revision in revisions:
        put_later(known, "job", Manifest(revision, Timeout(revision)))
    assert known == {"job": Manifest(6, Timeout(6))}
