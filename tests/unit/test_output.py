"""What commands print, for any text and any error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repo.errors import CorruptDatabaseError, DiskError, RowRejected, SchemaError, TransientError
from worker.cli.output import counts_text, json_text, safe, shortened, user_message
from worker.errors import BrokerError, ConfigurationError, SettingError, exit_code

ANY_TEXT = st.text(st.characters(categories=None))


@given(ANY_TEXT)
def test_safe_text_and_json_are_printable_and_json_can_be_read_back(text: str) -> None:
    assert safe(text).isprintable()
    assert safe(safe(text)) == safe(text)
    written = json_text({"text": text})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {"text": text}


def test_a_long_text_is_shortened_with_an_ellipsis() -> None:
    assert shortened("x" * 30, 30) == "x" * 30
    assert shortened("x" * 31, 30) == "x" * 29 + "…"


def test_counts_of_0_are_left_out() -> None:
    assert counts_text({"new": 0, "rejected": 2, "runs_new": 1}) == "2 rejected, 1 runs new"
    assert counts_text({"written": 0, "rejected": 0}) == "0 written"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SettingError("--nats", "no"), 64, "--nats: no"),
        (CorruptDatabaseError("x"), 65, "corrupt"),
        (TransientError("x"), 75, "locked"),
        (DiskError("x"), 75, "full"),
        (BrokerError("unavailable"), 75, "unavailable"),
        (SchemaError("x"), 78, "tables"),
        (RowRejected("x"), 78, "constraint"),
        (ConfigurationError("x\x1b[2J"), 78, r"x\x1b[2J"),
    ],
)
def test_an_error_has_an_exit_code_and_a_message(
    error: SettingError | CorruptDatabaseError, code: int, words: str
) -> None:
    assert exit_code(error) == code
    assert words in user_message(error)


def test_the_message_for_a_setting_omits_the_cause_which_may_hold_a_secret() -> None:
    error = SettingError("--creds-file", "no")
    error.__cause__ = ValueError("s3cret")
    assert "s3cret" not in user_message(error)
