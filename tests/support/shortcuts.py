"""What shows that a decoder's shortcut for usual payloads changes nothing."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from worker.projections.base import MalformedEvent

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(), children),
    max_leaves=4,
)
_NAMES = st.text(max_size=3)
_SPACES = st.sampled_from([(", ", ": "), (",", ":"), (" ,", " : ")])


def changed(members: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Return payloads that hold these members, some of them changed, missing, new or broken."""
    names = st.permutations(list(members)).flatmap(
        lambda order: st.integers(0, 2).map(lambda fewer: order[: len(order) - fewer])
    )
    more = st.dictionaries(st.sampled_from(list(members)) | _NAMES, _VALUES, max_size=2)
    texts = st.builds(
        lambda order, new, form: json.dumps(
            {**{name: members[name] for name in order}, **new}, separators=form
        ).encode(),
        *(names, more, _SPACES),
    )
    replaced = st.builds(
        lambda data, at, length, new: data[:at] + new + data[at + length :],
        *(texts, st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)),
    )
    return texts | replaced


def assert_same(
    decode: Callable[[bytes], object], exact: Callable[[bytes], object], data: bytes
) -> None:
    """Check that a decoder returns or raises what the exact one does."""
    assert repr(_outcome(decode, data)) == repr(_outcome(exact, data))  # 1 == 1.0 == True


def _outcome(decode: Callable[[bytes], object], data: bytes) -> object:
    try:
        return decode(data)
    except MalformedEvent as error:
        return str(error)
