"""Foreign text: what servers, APIs, files and other libraries say, made fit for a log line, an error and a terminal.

Whoever writes it could forge log lines with line ends, steer a terminal with escape sequences, fill a disk with one
answer, or have a password of a URL repeated. What is foreign is therefore passed through `foreign` where it enters a
text of ours.
"""

from __future__ import annotations

import re

__all__ = ["LINE", "LONGEST", "foreign", "line", "plain"]

LONGEST = 200
"""Characters kept of one foreign text."""
LINE = 300
"""Characters of a log line."""
_CUT = "…"
_USER_INFO = re.compile(r"(?<=://)[^\s/?#]{1,1000}@")


def foreign(text: object, longest: int = LONGEST) -> str:
    """`str(text)` in at most `longest` characters: control characters, line ends and what else is not printable are
    escaped, and the user and password of a URL are left out."""
    try:
        found = str(text)
    except Exception:  # noqa: BLE001  # the text of a foreign exception is foreign code
        found = f"<{type(text).__name__} without a text>"
    # Cut first: what follows would take as long as the text. Twice as much, since leaving out makes it shorter.
    found = plain(found[: 2 * longest])
    return found if len(found) <= longest else found[: longest - 1] + _CUT


def line(text: object) -> str:
    """The same for a whole log line."""
    return foreign(text, LINE)


def plain(text: str) -> str:
    """The same in full length, for a text of ours whose foreign parts were cut before."""
    if "://" in text:
        text = _USER_INFO.sub("…@", text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
