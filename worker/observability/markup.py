"""HTML from values: every text is escaped, and only what `element` returns is not. Pure."""

import html

_LONGEST = 80


class Html(str):
    """Markup whose texts are escaped."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str) -> Html:
    """Return an element. A child or value that is not Html is escaped.

    Attributes are written with _ for -, and with a _ at the end where Python has such a word.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Return several pieces as one; those that are not Html are escaped."""
    return Html("".join(_escaped(child) for child in children))


def foreign(text: str) -> Html:
    """Return a text that others wrote: cut if it is long, and kept from reordering its line."""
    if len(text) <= _LONGEST:
        return element("bdi", text)
    return element("bdi", f"{text[: _LONGEST - 1]}…", title=text)


def _escaped(text: str) -> str:
    if isinstance(text, Html):
        return text
    # A control character could reorder or hide what stands beside it.
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return html.escape("".join(shown))
