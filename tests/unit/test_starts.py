import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.events import STARTED_AT, payload, start
from worker.codec.timestamps import parse_instant
from worker.projections.starts import MalformedEvent, decode_start

TEXTS = ["result_id", "request_id", "exec_id", "pc_id", "manifest_id", "version"]
MEMBERS = [*TEXTS, "started_at"]
VALID = payload()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


def with_raw(member: str) -> bytes:
    """Return a valid payload with the JSON text of one more member in front."""
    return b"{" + member.encode("utf-8", "surrogatepass") + b"," + payload()[1:]


def rejection(data: bytes) -> str:
    """Return why a payload is rejected; the reason is one short line that can be stored."""
    with pytest.raises(MalformedEvent) as raised:
        decode_start(data)
    reason = str(raised.value)
    assert reason.encode("utf-8")
    assert "\n" not in reason
    assert len(reason) < 500
    return reason


def test_a_payload_is_decoded_into_seven_members_that_cannot_be_changed() -> None:
    texts = {name: f"the {name}" for name in TEXTS}
    event = decode_start(json.dumps({**texts, "started_at": STARTED_AT}).encode())
    assert {name: getattr(event, name) for name in TEXTS} == texts
    assert event.started_at == 1_779_278_400_123_456_789
    with pytest.raises(AttributeError):
        event.pc_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_that_is_missing_or_not_a_string_is_named_in_the_rejection(member: str) -> None:
    event = start()
    del event[member]
    reason = rejection(json.dumps(event).encode())
    assert member in reason
    assert "missing" in reason
    for value in (None, True, False, 0, 1.5, 10**30, [], ["x"], {}, {"x": "y"}):
        reason = rejection(payload(**{member: value}))
        assert member in reason
        assert "string" in reason


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-05-20", "2026-05-20T12:00:00", "2026-02-30T00:00:00Z", "\x00", "9" * 10_000],
    ids=lambda text: ascii(text[:20]),
)
def test_an_invalid_started_at_is_named_in_the_rejection(text: str) -> None:
    assert "started_at" in rejection(payload(started_at=text))


def test_the_clock_of_an_agent_may_be_wrong_by_any_amount() -> None:
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert decode_start(payload(started_at=text)).started_at == parse_instant(text)


@pytest.mark.parametrize("member", TEXTS)
@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "\u00fcml\u00e4ut", "\u65e5\u672c\u8a9e", "\U0001f680", "a\x00b", "a.b*c>"),
        *("'; --", "\r\n\t", "\ufeff", "\uffff", "x" * 100_000),
    ],
    ids=lambda text: ascii(text[:9]),
)
def test_a_member_may_hold_any_text_escaped_or_not(member: str, text: str) -> None:
    event = start(**{member: text})
    for escaped in (True, False):
        data = json.dumps(event, ensure_ascii=escaped).encode()
        assert getattr(decode_start(data), member) == text


@pytest.mark.parametrize("member", TEXTS)
def test_a_lone_surrogate_cannot_be_stored_and_is_rejected(member: str) -> None:
    for escape in (rb"\ud800", rb"a\udfffb", rb"\ude80\ud83d"):
        reason = rejection(payload(**{member: "LONE"}).replace(b"LONE", escape))
        assert member in reason
        assert "surrogate" in reason


@pytest.mark.parametrize(
    "member",
    [
        *('"more":null', '"more":{"result_id":7}', '"":""', '"RESULT_ID":1', '"more":"\\ud800"'),
        *('"\\ud800":1', '"more":1e400', '"more":-0.0e-999999', '"more":' + "9" * 5_000),
        *('"more":-' + "9" * 100_000, '"more":' + "[" * 100 + "]" * 100),
        '"more":' + '{"x":' * 100 + "1" + "}" * 100,
    ],
    ids=lambda member: member[:20],
)
def test_unknown_members_and_surrounding_white_space_are_ignored(member: str) -> None:
    limit = sys.get_int_max_str_digits()
    for data in (with_raw(member), b" \t\r\n" + with_raw(member) + b" \t\r\n"):
        assert decode_start(data).manifest_id == "job-1"
    assert sys.get_int_max_str_digits() == limit


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b" ", b"\x00", b"{", b"}", b"start", b"{}x", b"NaN", b"Infinity", b"-Infinity"),
        *(VALID[:-1], VALID + b"x", VALID + VALID, VALID[:-1] + b",}", b"/* start */" + VALID),
        *(VALID.replace(b'"', b"'"), VALID.replace(b"pc-1", b"pc\n1"), b"\xef\xbb\xbf" + VALID),
        *(VALID.replace(b"pc-1", rb"pc\x41"), VALID.replace(b"pc-1", rb"pc\u12")),
        *(VALID.decode().encode("utf-16"), VALID.decode().encode("utf-16-le")),
    ],
    ids=lambda data: ascii(data[:12]),
)
def test_a_payload_that_is_not_json_is_rejected(data: bytes) -> None:
    assert rejection(data)


def test_a_constant_that_json_lacks_is_named_in_the_rejection() -> None:
    for constant in ("NaN", "Infinity", "-Infinity"):
        assert constant.lstrip("-") in rejection(with_raw(f'"more":{constant}'))


@pytest.mark.parametrize(
    "data", [b"\xff", b"pc\xff1", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe9"]
)
def test_a_payload_that_is_not_utf_8_is_rejected_as_such(data: bytes) -> None:
    assert "UTF-8" in rejection(data)
    assert "UTF-8" in rejection(VALID.replace(b"pc-1", data))
    assert "UTF-8" in rejection(VALID[:-1] + b',"more":"' + data + b'"}')


@pytest.mark.parametrize("data", [b"null", b"true", b"1", b"1.5", b'"start"', b"[]", b"[{}]"])
def test_json_that_is_not_an_object_is_rejected(data: bytes) -> None:
    assert "object" in rejection(data)


@pytest.mark.parametrize("before", [b"", VALID[:-1] + b',"more":'], ids=["whole", "member"])
@pytest.mark.parametrize("opening", [b"[", b'{"x":'], ids=["arrays", "objects"])
def test_deep_nesting_is_rejected_without_changing_the_recursion_limit(
    before: bytes, opening: bytes
) -> None:
    limit = sys.getrecursionlimit()
    closing = b"]" if opening == b"[" else b"}"
    assert "nested" in rejection(before + opening * 100_000)
    assert "nested" in rejection(before + opening * 100_000 + b"1" + closing * 100_000 + b"}")
    assert sys.getrecursionlimit() == limit


def test_a_payload_of_five_megabytes_is_decoded_or_rejected_by_the_same_rules() -> None:
    many = 5 * 1024 * 1024
    assert len(decode_start(payload(version="v" * many)).version) == many
    assert decode_start(with_raw('"more":"' + "x" * many + '"')).pc_id == "pc-1"
    assert "started_at" in rejection(payload(started_at="9" * many))
    assert rejection(b"x" * many)
    assert rejection(b"\xff" * many)


byte_replacements = st.builds(
    lambda place, length, new: VALID[:place] + new + VALID[place + length :],
    *(st.integers(0, len(VALID)), st.integers(0, 3), st.binary(max_size=3)),
)


@settings(max_examples=400)
@given(
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(MEMBERS), json_values).map(lambda found: payload(**found))
    | byte_replacements
)
def test_any_payload_is_decoded_or_rejected_with_a_reason_that_can_be_stored(data: bytes) -> None:
    try:
        event = decode_start(data)
    except MalformedEvent as error:
        str(error).encode("utf-8")
        return
    members = json.loads(data)
    assert [getattr(event, name) for name in TEXTS] == [members[name] for name in TEXTS]


@given(st.sampled_from(TEXTS), st.text())
def test_any_text_is_decoded_unchanged(member: str, text: str) -> None:
    assert getattr(decode_start(payload(**{member: text})), member) == text
