import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.projections.output import LONGEST, output_text

NOTE = "\n[projector: output cut at 16 MiB]"


@given(st.text())
def test_text_is_returned_as_it_was_written(text: str) -> None:
    assert output_text(text.encode()) == text


@given(st.binary())
def test_any_bytes_become_text_that_can_be_stored_and_is_not_shorter(data: bytes) -> None:
    assert len(output_text(data).encode()) >= len(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"big \xff", "big �"),
        (b"\xf0\x9f\x98", "�"),  # the beginning of a character counts as one
        (b"a\xed\xa0\x80b", "a���b"),  # a surrogate
        (b"\xef\xbb\xbfa\x00\r\n", "\ufeffa\x00\r\n"),
    ],
)
def test_invalid_bytes_become_replacement_characters(data: bytes, text: str) -> None:
    assert output_text(data) == text


@pytest.mark.parametrize("character", ["a", "é", "€", "\U0001f680"])
@pytest.mark.parametrize("offset", range(4))
def test_long_output_is_cut_between_characters_and_says_so(character: str, offset: int) -> None:
    text = "b" * offset + character * (LONGEST // len(character.encode()))
    for more in ("cc", "c" * LONGEST):
        cut = output_text((text + more).encode())
        assert cut.endswith(NOTE)
        kept = cut.removesuffix(NOTE)
        assert text.startswith(kept)
        assert LONGEST - 4 < len(cut.encode()) <= LONGEST


def test_output_of_exactly_16_mib_is_kept_and_one_more_byte_is_cut() -> None:
    assert output_text(b"a" * LONGEST) == "a" * LONGEST
    assert output_text(b"a" * (LONGEST + 1)).endswith(NOTE)


def test_invalid_bytes_count_as_what_is_stored() -> None:
    cut = output_text(b"\xff" * (LONGEST // 2))
    assert cut.endswith("�" + NOTE)
    assert len(cut.encode()) <= LONGEST
