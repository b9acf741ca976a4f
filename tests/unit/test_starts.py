import json
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.events import STARTED_AT, payload, start
from tests.support.shortcuts import assert_same, changed
from worker.codec.timestamps import format_instant, parse_instant
from worker.projections.base import MalformedEvent
from worker.projections.starts import decode_start, read_start

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
    assert event.started_at == "2026-05-20T12:00:00.123456789+00:00"
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


def test_started_at_may_be_any_instant_however_wrong_and_nothing_else() -> None:
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert decode_start(payload(started_at=text)).started_at == format_instant(
            parse_instant(text)
        )
    for text in ("", "now", "2026-05-20", "2026-05-20T12:00:00", "2026-02-30T00:00:00Z", "\x00"):
        assert "started_at" in rejection(payload(started_at=text))


@pytest.mark.parametrize("member", MEMBERS)
def test_a_known_member_that_stands_twice_is_rejected_however_it_is_spelled(member: str) -> None:
    value = json.dumps(start()[member])
    for name in (member, member.replace("_", "\\u005f"), f"\\u{ord(member[0]):04x}{member[1:]}"):
        for space in ("", " \t\r\n"):
            assert f"{member}: the member stands twice" in rejection(
                with_raw(f'{space}"{name}"{space}:{space}{value}{space}')
            )


@pytest.mark.parametrize(
    "members",
    [
        *('"more":1,"more":2', '"more":{"pc_id":1,"pc_id":2},"then":[{"pc_id":3}]'),
        *('"more":"pc_id","then":["\\"pc_id\\":1"]', '"pc\\u002did":1,"":0'),
        '"more":' + '{"pc_id":' * 899 + "1" + "}" * 899,
    ],
    ids=lambda members: members[:20],
)
def test_an_unknown_member_may_stand_twice_and_hold_known_names(members: str) -> None:
    assert decode_start(with_raw(members)).pc_id == "pc-1"
    assert "pc_id: the member stands twice" in rejection(with_raw(f'{members},"pc_id":"x"'))


@pytest.mark.parametrize("member", TEXTS)
@given(st.text())
@example("a\x00b")
@example("\ufeff\uffff\U0001f680")
@example("x" * 100_000)
def test_a_member_may_hold_any_text_escaped_or_not(member: str, text: str) -> None:
    for escaped in (True, False):
        data = json.dumps(start(**{member: text}), ensure_ascii=escaped).encode()
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


NOT_JSON = [
    *(b"", b" ", b"\x00", b"{", b"}", b"start", b"{}x", b"NaN", b"Infinity", b"-Infinity"),
    *(VALID[:-1], VALID + b"x", VALID + VALID, VALID[:-1] + b",}", b"/* start */" + VALID),
    *(VALID.replace(b'"', b"'"), VALID.replace(b"pc-1", b"pc\n1"), b"\xef\xbb\xbf" + VALID),
    *(VALID.replace(b"pc-1", rb"pc\x41"), VALID.replace(b"pc-1", rb"pc\u12")),
    *(with_raw(f'"more":{constant}') for constant in ("NaN", "Infinity", "-Infinity")),
    VALID.decode().encode("utf-16-le"),
]
NOT_UTF_8 = [
    *(b"\xff", VALID.decode().encode("utf-16"), VALID[:-1] + b',"more":"\xe9"}'),
    *(VALID.replace(b"1", part) for part in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90")),
]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        *((data, "not JSON") for data in NOT_JSON),
        *((data, "not UTF-8") for data in NOT_UTF_8),
        *((data, "object") for data in (b"null", b"true", b"1", b"1.5", b'"{}"', b"[]", b"[{}]")),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_a_payload_that_is_not_a_json_object_is_rejected(data: bytes, words: str) -> None:
    assert words in rejection(data)


@pytest.mark.parametrize("before", [b"", VALID[:-1] + b',"more":'], ids=["whole", "member"])
@pytest.mark.parametrize("opening", [b"[", b'{"x":'], ids=["arrays", "objects"])
def test_very_deep_nesting_is_rejected_and_harmless(before: bytes, opening: bytes) -> None:
    limit, closing = sys.getrecursionlimit(), b"]" if opening == b"[" else b"}"
    assert "nested" in rejection(before + opening * 100_000)
    assert "nested" in rejection(before + opening * 100_000 + b"1" + closing * 100_000 + b"}")
    assert sys.getrecursionlimit() == limit


def test_a_payload_of_five_megabytes_is_decoded_or_rejected_by_the_same_rules() -> None:
    many = 5 * 1024 * 1024
    assert len(decode_start(payload(version="v" * many)).version) == many
    assert decode_start(with_raw('"more":"' + "x" * many + '"')).pc_id == "pc-1"
    assert "started_at" in rejection(payload(started_at="9" * many))
    assert rejection(b"x" * many) != rejection(b"\xff" * many)


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


@settings(max_examples=200)
@given(changed(start()))
@example(payload(started_at="2026-05-20T12:00:00.123456789Z"))
@example(payload(started_at="2026-05-20T12:00:60.123456789Z"))
@example(payload(started_at="2026-12-31T23:59:60.123456789Z"))
@example(payload(started_at="2026-05-20T12:00:00.123456000Z"))
@example(payload(started_at="2026-05-20t12:00:00.123456789Z"))
@example(payload(pc_id="a\\b"))
@example(payload(pc_id='a"b'))
@example(payload(pc_id="\x7f"))
@example(payload(pc_id="\u30ab"))
@example(payload()[:-1] + b',"pc_id":"twice"}')
@example(payload().replace(b'"pc_id"', b'"result_id"'))
@example(payload().replace(b'": "', b'":"').replace(b'", "', b'","'))
@example(payload().replace(b'": "', b'":  "'))
@example(payload().replace(b"pc-1", b"pc\t1"))
@example(payload() + b"\n")
def test_the_shortcut_for_plain_starts_changes_nothing(data: bytes) -> None:
    assert_same(decode_start, read_start, data)


def test_any_order_of_the_members_is_read_and_so_are_more_orders_than_are_remembered() -> None:
    members = list(start(pc_id="the PC").items())
    for number in range(len(members)):
        order = dict(members[number:] + members[:number])
        for _ in range(2):
            event = decode_start(json.dumps(order).encode())
            assert (event.pc_id, event.result_id) == ("the PC", order["result_id"])
