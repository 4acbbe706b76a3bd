"""Words of GBNF, llama.cpp's grammar language: JSON's own rules, and text quoted so that it matches only itself.

https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from collections.abc import Mapping
from typing import Final

PRIMITIVES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "space": ('" "? | "\\n" [ ]{0,24}', ()),
    "char": (
        '[^"\\\\\\x00-\\x1F\\x7F] | "\\\\" (["\\\\/bfnrt] | "u" unicode)',
        ("unicode",),
    ),
    # Surrogates only as a pair: half of one is no character.
    "unicode": (
        '[0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2} | [dD] [89abAB] hex{2} "\\\\u" [dD] [c-fC-F] hex{2}',
        ("hex",),
    ),
    "hex": ("[0-9a-fA-F]", ()),
    "string": ('"\\"" char* "\\""', ("char",)),
    "integer": ('"-"? ("0" | [1-9] [0-9]{0,15})', ()),
    "number": ('integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?', ("integer",)),
    "boolean": ('"true" | "false"', ()),
    "null": ('"null"', ()),
    "value": ("object | array | string | number | boolean | null",
              ("object", "array", "string", "number", "boolean", "null")),
    "object": ('"{" space (string ":" space value ("," space string ":" space value)*)? space "}"',
               ("space", "string", "value")),
    "array": ('"[" space (value ("," space value)*)? space "]"', ("space", "value")),
    "date": ('[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])', ()),
    "time": ('clock ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [-+] clock)', ("clock",)),
    "clock": ('([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]', ()),
}  # fmt: skip
"""Rules by name: their body, and the rules it uses. Whitespace is bounded, or a model could write it forever."""
FORMATS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "date": ("date", ("date",)),
    "time": ("time", ("time",)),
    "date-time": ('date "T" time', ("date", "time")),
    "uuid": ('hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}', ("hex",)),
}
"""Formats of strings, without their quotes."""


def literal(text: str) -> str:
    """A GBNF string that matches exactly this text."""
    return '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return "\\" + character
    if 0x20 <= code < 0x7F:
        return character
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
