"""The decoder of results: each line of the contract's table of members."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.shortcuts import assert_same, changed
from worker.codec.timestamps import format_instant, parse_instant
from worker.messages import Message, Output
from worker.projections.base import MalformedEvent
from worker.projections.results import EventResult, build_result, decode_result, read_result

ABSENT = object()
TEXTS = ["result_id", "request_id", "pc_id", "stdout", "stderr"]
OPTIONAL = ["exec_id", "parent_result_id", "manifest_id", "stdout_object", "stderr_object"]
TIMES = ["started_at", "finished_at"]
MEMBERS = [*TEXTS, *OPTIONAL, *TIMES, "exit_code", "skipped"]
RESULT = {
    "result_id": "r1",
    "request_id": "q",
    "exec_id": "e1",
    "pc_id": "p",
    "exit_code": 0,
    "stdout": "o",
    "stderr": "",
    "started_at": "2026-05-20T12:00:00Z",
    "finished_at": "2026-05-20T12:00:05.5Z",
    "manifest_id": "job",
}


def payload(**changes: Any) -> bytes:
    members = {**RESULT, **changes}
    return json.dumps({name: one for name, one in members.items() if one is not ABSENT}).encode()


def with_raw(member: str, text: str) -> bytes:
    """Return a payload in which one member is this JSON text."""
    return payload(**{member: "RAW"}).replace(b'"RAW"', text.encode())


def decoded(**changes: Any) -> EventResult:
    return decode_result(payload(**changes))


def rejection(data: bytes) -> str:
    with pytest.raises(MalformedEvent) as raised:
        decode_result(data)
    reason = str(raised.value)
    assert reason.encode()
    assert "\n" not in reason
    assert len(reason) < 500
    return reason


def test_the_members_that_are_absent_have_defaults() -> None:
    assert decoded() == EventResult(
        result_id="r1",
        request_id="q",
        pc_id="p",
        exit_code=0,
        stdout="o",
        stderr="",
        started_at="2026-05-20T12:00:00+00:00",
        finished_at="2026-05-20T12:00:05.500+00:00",
        skipped=False,
        exec_id="e1",
        parent_result_id=None,
        manifest_id="job",
        stdout_object=None,
        stderr_object=None,
    )
    assert decoded(exec_id=ABSENT).exec_id is None


@pytest.mark.parametrize("member", [*TEXTS[1:], *TIMES, "exit_code"])
def test_a_required_member_that_is_absent_is_named_in_the_rejection(member: str) -> None:
    assert rejection(payload(**{member: ABSENT})) == f"{member}: the member is missing"


@pytest.mark.parametrize("member", [*TEXTS, *TIMES, "exit_code", "skipped"])
def test_null_is_rejected_where_the_member_has_a_type(member: str) -> None:
    assert f"{member}: expected" in rejection(payload(**{member: None}))


@pytest.mark.parametrize("member", OPTIONAL)
def test_an_optional_text_may_be_absent_or_null_or_empty(member: str) -> None:
    assert getattr(decoded(**{member: ABSENT}), member) is None
    assert getattr(decoded(**{member: None}), member) is None
    assert getattr(decoded(**{member: ""}), member) == ""


@pytest.mark.parametrize("member", [*TEXTS, *OPTIONAL, *TIMES])
@pytest.mark.parametrize("value", [True, 0, 1.5, [], ["x"], {}, {"x": "y"}])
def test_any_other_type_than_text_is_rejected(member: str, value: object) -> None:
    assert f"{member}: expected a string" in rejection(payload(**{member: value}))


@pytest.mark.parametrize("value", [0, 1, "true", "", [], {}, 1.0])
def test_only_a_boolean_says_whether_a_run_was_skipped(value: object) -> None:
    assert "skipped: expected a boolean" in rejection(payload(skipped=value))
    assert [decoded(skipped=one).skipped for one in (True, False, ABSENT)] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("0", 0),
        ("-0", 0),
        ("-1", -1),
        ("125", 125),
        ("2147483647", 2**31 - 1),
        ("-2147483648", -(2**31)),
    ],
)
def test_an_exit_code_is_an_integer_of_32_bits(text: str, exit_code: int) -> None:
    found = decode_result(with_raw("exit_code", text)).exit_code
    assert (found, type(found)) == (exit_code, int)


@pytest.mark.parametrize(
    "text",
    [
        *("1.0", "0.0", "-0.0", "1e2", "1E2", "0e0", "1e400", "true", "false", '"1"', '""'),
        *("2147483648", "-2147483649", "9223372036854775808", "1" + "0" * 18, "[]", "{}", "[0]"),
        *("9" * 5000, "-" + "9" * 5000, "-" + "9" * 19),
    ],
    ids=lambda text: text[:24],
)
def test_any_other_exit_code_is_rejected(text: str) -> None:
    assert rejection(with_raw("exit_code", text)).startswith("exit_code: ")


@pytest.mark.parametrize("text", ["01", "+1", "0x10", "1.", ".5", "NaN", "Infinity", "1_000"])
def test_a_number_that_json_does_not_have_makes_the_payload_malformed(text: str) -> None:
    assert rejection(with_raw("exit_code", text)).startswith("not JSON")


@pytest.mark.parametrize("member", TIMES)
def test_a_time_may_be_any_instant_and_the_end_may_be_before_the_start(member: str) -> None:
    for text in ("0001-01-01T00:00:00Z", "9999-12-31 23:59:59.999999999+00:00"):
        assert getattr(decoded(**{member: text}), member) == format_instant(parse_instant(text))
    for text in ("", "now", "2026-05-20", "2026-05-20T12:00:00", "2026-02-30T00:00:00Z"):
        assert rejection(payload(**{member: text})).startswith(f"{member}: not an RFC 3339 instant")


@pytest.mark.parametrize("member", MEMBERS)
def test_a_known_member_that_stands_twice_is_rejected(member: str) -> None:
    assert decoded(**{member: RESULT.get(member, ABSENT)})
    again = f'{{"{member}":null,"{member}":null,'.encode() + payload(**{member: ABSENT})[1:]
    assert rejection(again) == f"{member}: the member stands twice"


@pytest.mark.parametrize(
    "member",
    [
        *('"collect_object":null', '"collect_object":{"key":[1,2]}', '"collect_object":"k"'),
        *('"more":1,"more":2', '"EXIT_CODE":"x"', '"more":{"exit_code":"x"}', '"":1', '"more":1e9'),
        *('"more":"\\ud800"', '"more":' + "9" * 5000, '"more":-' + "9" * 5000),
        '"more":' + '{"exit_code":' * 890 + "1" + "}" * 890,
    ],
    ids=lambda member: member[:24],
)
def test_unknown_members_are_ignored_whatever_they_hold(member: str) -> None:
    assert decode_result(b"{" + member.encode() + b"," + payload()[1:]) == decoded()


@pytest.mark.parametrize("member", [*TEXTS, *OPTIONAL])
def test_a_lone_surrogate_is_rejected_and_a_zero_character_is_kept(member: str) -> None:
    for escape in (r"\ud800", r"a\udfffb", r"\ude80\ud83d"):
        reason = rejection(with_raw(member, f'"{escape}"'))
        assert reason.startswith(f"{member}: a lone surrogate")
    assert getattr(decode_result(with_raw(member, r'"a\u0000b"')), member) == "a\x00b"
    assert getattr(decode_result(with_raw(member, r'"\ud83d\ude80"')), member) == "\U0001f680"


@pytest.mark.parametrize("member", [*TEXTS[1:], *OPTIONAL])
@given(text=st.text())
def test_a_member_may_hold_any_text(member: str, text: str) -> None:
    assert getattr(decoded(**{member: text}), member) == text


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"1", b'"x"', b"\xff", b"{", b"{}"])
def test_a_payload_that_is_no_such_object_is_rejected(data: bytes) -> None:
    assert rejection(data)


# --- results without an id ------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [ABSENT, ""])
@pytest.mark.parametrize(
    ("request_id", "pc_id", "result_id"),
    [
        ("r", "x", "0fa0310d-c039-5679-ac84-9f227050a1bb"),
        ("a:b", "c", "e2d8a4c9-663a-5ba0-ac20-e2084050c29c"),
        ("a", "b:c", "e2d8a4c9-663a-5ba0-ac20-e2084050c29c"),
        ("", "", "eadefc5b-b034-5c3d-b8c6-5ce32051086e"),
    ],
)
def test_an_empty_id_is_replaced_by_one_of_request_and_pc(
    absent: object, request_id: str, pc_id: str, result_id: str
) -> None:
    found = decoded(result_id=absent, request_id=request_id, pc_id=pc_id)
    assert found.result_id == result_id


def test_the_id_of_a_result_is_otherwise_kept_as_it_is() -> None:
    for result_id in (" ", "\x00", "x" * 10_000):
        assert decoded(result_id=result_id).result_id == result_id


# --- rows -----------------------------------------------------------------------------------------


def test_a_row_takes_its_output_from_the_result_unless_it_was_offloaded() -> None:
    message = Message("results.q", payload(), 7, 1, parse_instant("2026-05-20T12:00:06.25Z"))
    event = decoded(stderr="e")
    row = build_result(event, message)
    assert (row.job_id, row.stdout, row.stderr, row.stream_sequence) == ("job", "o", "e", 7)
    assert row.started_at == "2026-05-20T12:00:00+00:00"
    assert row.finished_at == "2026-05-20T12:00:05.500+00:00"
    assert row.recorded_at == "2026-05-20T12:00:06.250+00:00"
    assert build_result(event, message._replace(output=Output(stdout=""))) == row._replace(
        stdout=""
    )
    assert build_result(event, message._replace(output=Output(stderr="big"))) == row._replace(
        stderr="big"
    )


@settings(max_examples=200)
@given(changed(RESULT))
@example(payload(exit_code=True))
@example(payload(exit_code=2**31))
@example(payload(skipped=0))
@example(payload(result_id=""))
@example(payload(result_id="\u30ab", stdout="\u001b[0m \u30ab\n"))
@example(payload(stdout="\ud800"))
@example(payload(manifest_id="\udfff"))
@example(payload(stdout_object=[]))
@example(payload(finished_at="2026-02-30T00:00:00.123456789Z"))
@example(payload()[:-1] + b',"stdout":"twice"}')
@example(payload()[:-1] + b',"more":{"a":1,"a":2}}')
@example(payload()[:-1] + b',"more":NaN}')
@example(payload()[:-1] + b',"more":' + b"9" * 5000 + b"}")
@example(b" " + payload() + b" ")
@example(payload() + b"x")
def test_the_shortcut_for_usual_results_changes_nothing(data: bytes) -> None:
    assert_same(decode_result, read_result, data)
