"""What a text says, sentence by sentence: of Markdown pages, docstrings, messages and help texts.

Code, quoted output, headings and link targets are left out. A code span counts as one word.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["LONGEST", "Fault", "Sentence", "docstrings", "faults", "messages", "openings", "sentences"]

LONGEST = 25
"""Words of a sentence."""

_PARSER = MarkdownIt("commonmark").enable("table")
_LOWER = (
    "aiohttp|asyncpg|boto3|celery|dnspython|eventlet|getaddrinfo|gevent|gunicorn|httpx|libpq|psycopg|redis-py|tenacity"
)
# A sentence begins with a capital, a figure, code, or a name that is written small.
_END = re.compile(rf"(?:(?<=[.!?…])|(?<=[.!?…][\"'”)]))\s+(?=[\"'“(]*(?:[A-Z0-9`*]|(?:{_LOWER}|urllib3|uWSGI)\b))")
_WORD = re.compile(r"\S*[^\W_]\S*")
_VERBS = "is|was|has|had|does|did|can|could|may|must|will|would|holds|stands"

AVOID = {
    "as ever": "as before",
    "under way": "in flight",
    "look-up": "lookup",
    "look-ups": "lookups",
    "time-out": "timeout",
    "time-outs": "timeouts",
    "that of": "the noun again",
    "those of": "the noun again",
    "those that": "the noun again",
    "those which": "the noun again",
    "those who": "the noun again",
    "that which": "the noun again",
    "of which": "two sentences",
    "of whom": "two sentences",
    "ours": "the noun again",
    "theirs": "the noun again",
    "so is": "'also', with a verb",
    "so are": "'also', with a verb",
    "so does": "'also', with a verb",
    "so do": "'also', with a verb",
    "so will": "'also', with a verb",
    "nor is": "'not … either', or two sentences",
    "nor are": "'not … either', or two sentences",
    "nor does": "'not … either', or two sentences",
    "nor do": "'not … either', or two sentences",
    "somebody": "another caller",
    "someone": "another caller",
    "anybody": "any caller",
    "nobody": "no caller, no server",
    "whoever": "the caller",
    "whichever": "the smaller, the first",
    "thereof": "of it, with the noun",
    "therein": "in it, with the noun",
    "hence": "so",
    "whereby": "two sentences",
    "wherein": "two sentences",
    "lest": "so that … not",
    "not un": "one negation",
    "out of choice": "ejected",
    "taken out of": "ejected from",
    "is none": "is not a …",
    "may be repeated": "is idempotent, or can be retried",
    "may not be repeated": "is not idempotent, or must not be retried",
    "tried again": "retried",
    "try again": "retry",
    "tries again": "retries",
    "the own": "its own, or the caller's",
}
"""What is read twice, and what stands there instead."""

# "one" in the place of a noun: at the end of a clause, or with a relative clause or a verb. As a number ("one of the
# tasks", "one task") it is fine.
_CLAUSE = r"[.,;:!?)]*$|[.,;:!?)]"
_PRONOUN = re.compile(
    rf"(?<!at least )(?<!one by )\bone(?={_CLAUSE}| (?:that|which|who|{_VERBS})\b)"
    r"|\b(?:the|this|that|such a|another|new|old|other|same|each|every|which|any|no|a) one\b"
    rf"(?={_CLAUSE}| (?:of|in|to|for|with|from|and|or|that|which|{_VERBS})\b)"
    r"|\bones\b",
    re.IGNORECASE,
)
_AVOID = re.compile(r"\b(" + "|".join(sorted(map(re.escape, AVOID), key=len, reverse=True)) + r")\b", re.IGNORECASE)
_OPENING = re.compile(rf"(?:It|They|Them|Its|Their|One|Those|He|She|(?:This|These|That) (?:{_VERBS}|are))\b")


class Sentence(NamedTuple):
    """A sentence and the line on which its paragraph or table row begins, or closer where that is known."""

    line: int
    text: str


class Fault(NamedTuple):
    """Why a sentence is hard to read."""

    place: str
    line: int
    why: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}:{self.line}: {self.why}: {self.text}"


def _spoken(inline: Token) -> str:
    """The text of a paragraph or cell, its line ends kept."""
    found = []
    for part in inline.children or ():
        if part.type == "code_inline":
            found.append("`" + re.sub(r"\s", "_", part.content) + "`")
        elif part.type in ("softbreak", "hardbreak"):
            found.append("\n")
        elif part.type == "html_inline" and part.content.startswith("<br"):
            found.append(". ")  # a line of a cell
        elif part.type == "image" or part.type == "text":
            found.append(part.content)
    return "".join(found)


def _split(text: str, line: int) -> Iterator[Sentence]:
    begin = 0
    for match in _END.finditer(text):
        yield Sentence(line + text.count("\n", 0, begin), " ".join(text[begin : match.start()].split()))
        begin = match.end()
    if text[begin:].strip():
        yield Sentence(line + text.count("\n", 0, begin), " ".join(text[begin:].split()))


def sentences(text: str, first: int = 1) -> Iterator[Sentence]:
    """The sentences of a Markdown text. `first` is the number of its first line."""
    heading, row = False, 0
    for token in _PARSER.parse(text):
        if token.map is not None:
            row = token.map[0]
        if token.type.startswith("heading_"):
            heading = token.nesting == 1
        elif token.type == "inline" and not heading:
            yield from _split(_spoken(token), first + row)


def faults(place: str, found: Iterable[Sentence]) -> Iterator[Fault]:
    """What is hard to read: sentences that are too long, and words to avoid."""
    for line, text in found:
        words = len(_WORD.findall(text))
        if words > LONGEST:
            yield Fault(place, line, f"{words} words", text)
        bare = re.sub(r"`[^`]*`|\"[^\"]*\"", "`x`", text)
        for match in _AVOID.finditer(bare):
            yield Fault(place, line, f"'{match[0]}' (better: {AVOID[match[0].lower()]})", text)
        for match in _PRONOUN.finditer(bare):
            yield Fault(place, line, f"'{match[0]}' (better: the noun again)", text)


def openings(place: str, found: Iterable[Sentence]) -> Iterator[Fault]:
    """Sentences that begin with a pronoun: its noun is in another sentence."""
    for line, text in found:
        match = _OPENING.match(text)
        if match:
            yield Fault(place, line, f"begins with '{match[0]}' (better: the noun again)", text)


def docstrings(source: Path, names: frozenset[str] | None = None) -> Iterator[Sentence]:
    """The sentences of a module's public docstrings, attributes' included; `names` limits its classes and functions."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for line, text in _documented(tree, names):
        # An example in a docstring is an indented block; what follows a bare "::" is too.
        yield from sentences(inspect.cleandoc(text), line)


def _documented(node: ast.AST, names: frozenset[str] | None) -> Iterator[tuple[int, str]]:
    body: list[ast.stmt] = getattr(node, "body", [])
    before: ast.stmt | None = None
    for number, item in enumerate(body):
        if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str):
            attribute = isinstance(before, (ast.Assign, ast.AnnAssign)) and _public(before, names)
            if (number == 0 and names is None) or attribute:
                yield item.lineno, item.value.value
        elif isinstance(item, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            public = not item.name.startswith("_") if names is None else item.name in names
            if public and isinstance(item, ast.ClassDef):
                yield from _documented(item, None)
            elif public:
                yield from _documented(ast.Module(body=item.body[:1], type_ignores=[]), None)
        before = item


def _public(item: ast.stmt, names: frozenset[str] | None) -> bool:
    target = (
        item.target if isinstance(item, ast.AnnAssign) else item.targets[0] if isinstance(item, ast.Assign) else None
    )
    if not isinstance(target, ast.Name):
        return False
    return not target.id.startswith("_") if names is None else target.id in names


_LOGS = frozenset({"debug", "info", "warning", "error", "critical"})
_FINDINGS = frozenset({"Code", "found"})  # what the doctor says
_SAID = frozenset({"hint", "help", "description", "epilog", "do", "seen"})


def messages(source: Path, errors: frozenset[str]) -> Iterator[Sentence]:
    """The sentences of what a module's errors, hints, log lines and options say, with `X` for what is filled in."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        said = list(node.args[:1]) if name in errors or name in _LOGS else []
        said += node.args if name in _FINDINGS else []
        said += [keyword.value for keyword in node.keywords if keyword.arg in _SAID]
        for value in said:
            text = _literal(value)
            if text is not None:
                yield from _split(text, value.lineno)


def _literal(value: ast.expr) -> str | None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return re.sub(r"%\.?\d*[a-z]", "X", value.value)
    if isinstance(value, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "X" for part in value.values]
        return "".join(parts)
    return None
