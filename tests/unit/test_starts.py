import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.events import payload, start
from worker.projections.starts import EventStarted, MalformedEvent, decode_start

MEMBERS = (
    "result_id",
    "request_id",
    "exec_id",
    "pc_id",
    "started_at",
    "manifest_id",
    "version",
)
TEXTS = [member for member in MEMBERS if member != "started_at"]
WRONG = [None, True, False, 0, 1.5, 10**30, [], ["x"], {}, {"x": "y"}]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


def with_raw(member: str) -> bytes:
    """Return a valid start with the text of one more member in front."""
    return b"{" + member.encode("utf-8", "surrogatepass") + b"," + payload()[1:]


def refusal(data: bytes) -> str:
    """Return why a payload is refused; the text can be stored and stays on one line."""
    with pytest.raises(MalformedEvent) as raised:
        decode_start(data)
    reason = str(raised.value)
    assert reason.encode("utf-8")
    assert "\n" not in reason
    assert len(reason) < 500
    return reason


def test_a_start_is_decoded_member_by_member() -> None:
    event = {name: f"the {name}" for name in TEXTS}
    event["started_at"] = "2026-05-20T12:00:00.123456789Z"
    assert decode_start(json.dumps(event).encode()) == EventStarted(
        result_id="the result_id",
        request_id="the request_id",
        exec_id="the exec_id",
        pc_id="the pc_id",
        started_at=1_779_278_400_123_456_789,
        manifest_id="the manifest_id",
        version="the version",
    )


@pytest.mark.parametrize("member", MEMBERS)
def test_a_missing_member_is_refused_by_its_name(member: str) -> None:
    event = start()
    del event[member]
    reason = refusal(json.dumps(event).encode())
    assert member in reason
    assert "missing" in reason


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_a_member_that_is_no_string_is_refused_by_its_name(member: str, value: object) -> None:
    reason = refusal(payload(**{member: value}))
    assert member in reason
    assert "string" in reason


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-05-20", "2026-05-20T12:00:00", "2026-02-30T00:00:00Z", "\x00", "9" * 10_000],
)
def test_a_started_at_that_is_no_instant_is_refused_by_its_name(text: str) -> None:
    assert "started_at" in refusal(payload(started_at=text))


def test_an_agents_clock_may_be_wrong_by_any_amount() -> None:
    assert decode_start(payload(started_at="0001-01-01T00:00:00Z")).started_at < 0
    assert decode_start(payload(started_at="9999-12-31T23:59:59Z")).started_at > 0


def test_an_empty_exec_id_is_an_ad_hoc_run() -> None:
    assert decode_start(payload(exec_id="")).exec_id == ""


@pytest.mark.parametrize("member", TEXTS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u00fcml\u00e4ut",
        "\u65e5\u672c\u8a9e",
        "\U0001f680",
        "a\x00b",
        "a.b*c>",
        "'; --",
        "\r\n\t",
        "\ufeff",
        "\uffff",
        "x" * 100_000,
    ],
    ids=ascii,
)
def test_a_member_may_hold_any_text(member: str, text: str) -> None:
    for data in (
        payload(**{member: text}),
        json.dumps(start(**{member: text}), ensure_ascii=False),
    ):
        raw = data if isinstance(data, bytes) else data.encode()
        assert getattr(decode_start(raw), member) == text


def test_an_escaped_pair_of_surrogates_is_one_character() -> None:
    assert (
        decode_start(payload(pc_id="PAIR").replace(b"PAIR", rb"\ud83d\ude80")).pc_id == "\U0001f680"
    )


@pytest.mark.parametrize("member", TEXTS)
@pytest.mark.parametrize("escape", [rb"\ud800", rb"a\udfffb", rb"\ude80\ud83d"], ids=str)
def test_a_lone_surrogate_which_no_database_stores_is_refused_by_its_member(
    member: str, escape: bytes
) -> None:
    reason = refusal(payload(**{member: "LONE"}).replace(b"LONE", escape))
    assert member in reason
    assert "surrogate" in reason


@pytest.mark.parametrize(
    "member",
    [
        '"more":null',
        '"more":{"result_id":7}',
        '"":""',
        '"RESULT_ID":1',
        '"more":"\\ud800"',
        '"\\ud800":1',
        '"more":1e400',
        '"more":-0.0e-999999',
        '"more":' + "9" * 5_000,
        '"more":-' + "9" * 100_000,
        '"more":' + "[" * 100 + "]" * 100,
        '"more":' + '{"x":' * 100 + "1" + "}" * 100,
    ],
    ids=lambda member: str(member)[:20],
)
def test_unknown_members_are_ignored_whatever_they_hold(member: str) -> None:
    assert decode_start(with_raw(member)).manifest_id == "job-1"


def test_white_space_around_the_object_is_json() -> None:
    assert decode_start(b" \t\r\n" + payload() + b" \t\r\n").pc_id == "pc-1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"\x00",
        b"{",
        b"}",
        b"start",
        b"{}x",
        payload()[:-1],
        payload() + b"x",
        payload() + payload(),
        payload().replace(b'"', b"'"),
        payload()[:-1] + b",}",
        payload().replace(b"pc-1", b"pc\n1"),
        payload().replace(b"pc-1", rb"pc\x41"),
        payload().replace(b"pc-1", rb"pc\u12"),
        b"\xef\xbb\xbf" + payload(),
        payload().decode().encode("utf-16"),
        payload().decode().encode("utf-16-le"),
        b"/* start */" + payload(),
    ],
    ids=lambda data: ascii(data[:12]),
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    assert refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        payload().replace(b"pc-1", b"pc\xff1"),
        payload().replace(b"pc-1", b"\xc0\x80"),
        payload().replace(b"pc-1", b"\xed\xa0\x80"),
        payload().replace(b"pc-1", b"\xf4\x90\x80\x80"),
        payload()[:-1] + b',"more":"\xe9"}',
    ],
    ids=lambda data: ascii(data[-12:]),
)
def test_what_is_not_utf_8_is_refused_as_such(data: bytes) -> None:
    assert "UTF-8" in refusal(data)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_does_not_have_are_refused(constant: str) -> None:
    assert constant.lstrip("-") in refusal(with_raw(f'"more":{constant}'))
    assert refusal(constant.encode())


@pytest.mark.parametrize("data", [b"null", b"true", b"1", b"1.5", b'"start"', b"[]", b"[{}]"])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    assert "object" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
        with_raw('"more":' + "[" * 100_000 + "]" * 100_000),
    ],
    ids=["open", "arrays", "objects", "member"],
)
def test_nesting_beyond_all_measure_is_refused_and_stops_nobody(data: bytes) -> None:
    assert refusal(data)


def test_a_payload_of_five_megabytes_is_judged_like_any_other() -> None:
    many = 5 * 1024 * 1024
    assert len(decode_start(payload(version="v" * many)).version) == many
    assert decode_start(with_raw('"more":"' + "x" * many + '"')).pc_id == "pc-1"
    assert "started_at" in refusal(payload(started_at="9" * many))
    assert refusal(b"x" * many)
    assert refusal(b"\xff" * many)


def test_a_frozen_start_can_be_handed_to_another_thread() -> None:
    with pytest.raises(AttributeError):
        decode_start(payload()).pc_id = "other"  # type: ignore[misc]


def test_a_batch_of_starts_leaves_the_limits_of_the_interpreter_alone() -> None:
    before = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    decode_start(with_raw('"more":' + "9" * 5_000))
    refusal(b"[" * 100_000)
    assert (sys.getrecursionlimit(), sys.get_int_max_str_digits()) == before


def decodes_or_is_refused(data: bytes) -> None:
    try:
        event = decode_start(data)
    except MalformedEvent as error:
        reason = str(error)
    else:
        members = json.loads(data)
        assert [getattr(event, name) for name in TEXTS] == [members[name] for name in TEXTS]
        return
    assert reason.encode("utf-8")


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_decoded_or_refused_and_nothing_else(data: bytes) -> None:
    decodes_or_is_refused(data)


@settings(deadline=None)
@given(json_values)
def test_any_json_value_is_decoded_or_refused_and_nothing_else(value: Any) -> None:
    decodes_or_is_refused(json.dumps(value).encode())


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(MEMBERS), json_values))
def test_a_start_with_any_members_replaced_is_decoded_or_refused(members: dict[str, Any]) -> None:
    decodes_or_is_refused(payload(**members))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.binary(max_size=3))
def test_a_start_with_any_bytes_replaced_is_decoded_or_refused(
    place: int, length: int, bytes_there: bytes
) -> None:
    data = payload()
    place %= len(data)
    decodes_or_is_refused(data[:place] + bytes_there + data[place + length :])


@settings(deadline=None)
@given(st.sampled_from(TEXTS), st.text())
def test_any_text_that_utf_8_holds_comes_through_unchanged(member: str, text: str) -> None:
    assert getattr(decode_start(payload(**{member: text})), member) == text
