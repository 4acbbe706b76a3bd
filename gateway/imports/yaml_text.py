"""Writes a Draft as the text of a providers.yaml: block style down to the rows, one line for each key below them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from gateway.config.source import resolve_scalar
from gateway.imports.draft import NOTES_MAX, Draft
from providers.json_values import elements, members

COMMENT_WIDTH: Final = 116

_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./-]|:(?=[A-Za-z0-9_/-]))*")


def yaml_text(draft: Draft) -> str:
    """The file, comments and all."""
    return "\n".join(_lines(draft)) + "\n"


def scalar_text(value: object) -> str:
    """One value as YAML: plain where that reads back as the same text, quoted elsewhere."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) and resolve_scalar(text) == text else _quoted(text)


def decimal_text(value: Decimal) -> str:
    """A number without exponent and needless zeros; amounts that have cents keep two decimals."""
    whole, _, fraction = f"{value:f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction.ljust(2, '0')}" if fraction else whole


def flow_text(value: Any) -> str:
    """A value on one line: mappings and lists in braces and brackets. Neither is empty in a Draft."""
    if entries := members(value):
        return "{" + ", ".join(f"{scalar_text(key)}: {flow_text(item)}" for key, item in entries.items()) + "}"
    if items := elements(value):
        return "[" + ", ".join(map(flow_text, items)) + "]"
    return scalar_text(value)


def mapping_lines(facts: Mapping[str, Any], indent: int) -> Iterator[str]:
    """`key: value` lines."""
    for key, value in facts.items():
        yield f"{' ' * indent}{scalar_text(key)}: {flow_text(value)}"


def comment_lines(notes: Iterable[str], indent: int) -> Iterator[str]:
    """Notes as comments, wrapped."""
    for note in notes:
        words = _one_line(note).split(" ")
        line = ""
        for word in words:
            if line and len(line) + len(word) + indent + 3 > COMMENT_WIDTH:
                yield f"{' ' * indent}# {line}"
                line = f"  {word}"
            else:
                line = f"{line} {word}" if line else word
        yield f"{' ' * indent}# {line}"


def _lines(draft: Draft) -> Iterator[str]:
    yield from comment_lines([draft.title], 0)
    if draft.notes:
        yield "#"
        yield "# Not carried over, or to be looked at:"
        yield from comment_lines((f"* {note}" for note in draft.notes[:NOTES_MAX]), 0)
        if len(draft.notes) > NOTES_MAX:
            yield f"# * and {len(draft.notes) - NOTES_MAX} more"
    yield ""
    yield "providers:"
    for name, provider in draft.providers.items():
        yield from comment_lines(provider.notes, 2)
        yield f"  {scalar_text(name)}:"
        yield from mapping_lines(provider.facts, 4)
        yield "    models:"
        for upstream, row in provider.models.items():
            yield from comment_lines(row.notes, 6)
            yield f"      {scalar_text(upstream)}:" + ("" if row.facts else " {}")
            yield from mapping_lines(row.facts, 8)
    if draft.routes:
        yield ""
        yield "routes:"
    for name, route in draft.routes.items():
        yield from comment_lines(route.notes, 2)
        yield f"  {scalar_text(name)}:" + ("" if route.facts else " {}")
        yield from mapping_lines(route.facts, 4)


def _one_line(text: str) -> str:
    """Printable, on one line: a comment ends where its line does."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _quoted(text: str) -> str:
    """In double quotes, ASCII only, with YAML's escapes. https://yaml.org/spec/1.2.2/#57-escaped-characters"""  # noqa: D415  # a URL ends it
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    code = ord(letter)
    if letter in '"\\':
        return f"\\{letter}"
    if 0x20 <= code < 0x7F:
        return letter
    if 0xD800 <= code <= 0xDFFF:
        return "\\uFFFD"  # half of a pair that lost the other half
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
