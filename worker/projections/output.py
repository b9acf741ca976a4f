"""Output that an agent has moved into the object store, as the text that a row holds. Pure."""

LONGEST = 16 * 1024 * 1024
_NOTE = "\n[projector: output cut at 16 MiB]"


def output_text(data: bytes) -> str:
    """Return an object's bytes as text of at most 16 MiB in UTF-8; what is longer says so.

    Invalid bytes become U+FFFD. `data` may be only the beginning of the object, if it is longer
    than 16 MiB.
    """
    # No text is shorter than its bytes: U+FFFD has three, and replaces at most three.
    encoded = data[: LONGEST + 1].decode("utf-8", "replace").encode("utf-8")
    if len(encoded) <= LONGEST:
        return encoded.decode("utf-8")
    return encoded[: LONGEST - len(_NOTE)].decode("utf-8", "ignore") + _NOTE
