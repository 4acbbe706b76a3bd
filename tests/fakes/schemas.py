"""JSON Schemas out of a seed, over what the local grammar can enforce, each with values that satisfy it."""

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = Callable[[random.Random], Any]
WORDS = ("red", "blue", "caf\u00e9", "a b", 'say "hi"', "line\nbreak", "\u4e2d\u6587", "", "x" * 20)
DEPTH_MAX = 3


@dataclass(frozen=True)
class Made:
    """A schema and a maker of values for it."""

    schema: Any
    value: Value


def _integer(rng: random.Random) -> Made:
    low = rng.choice((-50, 0, 1, 7))
    high = low + rng.choice((0, 3, 90, 1000))
    if rng.random() < 0.4:
        return Made({"type": "integer"}, lambda r: r.choice((0, -1, 12, 10**6)))
    return Made({"type": "integer", "minimum": low, "maximum": high}, lambda r: r.randint(low, high))


def _string(rng: random.Random) -> Made:
    if rng.random() < 0.5:
        return Made({"type": "string", "description": "Any text."}, lambda r: r.choice(WORDS))
    low = rng.randint(0, 3)
    high = low + rng.randint(1, 8)
    letters = string.ascii_letters + " \u00e9"
    return Made(
        {"type": "string", "minLength": low, "maxLength": high},
        lambda r: "".join(r.choices(letters, k=r.randint(low, high))),
    )


def _enum(rng: random.Random) -> Made:
    values = rng.sample([*WORDS[:5], 1, 2.5, None, True], rng.randint(1, 4))
    return Made({"enum": values}, lambda r: r.choice(values))


def _const(rng: random.Random) -> Made:
    value = rng.choice((*WORDS[:4], 5, None, False))
    return Made({"const": value}, lambda _: value)


def _plain(rng: random.Random) -> Made:
    return rng.choice(
        (
            Made({"type": "number"}, lambda r: r.choice((0.5, -2.25, 3, 1e3))),
            Made({"type": "boolean"}, lambda r: r.random() < 0.5),
            Made({"type": ["string", "null"]}, lambda r: r.choice((*WORDS[:4], None))),
            Made({"type": "null"}, lambda _: None),
        )
    )


def _array(rng: random.Random, depth: int) -> Made:
    item = _any(rng, depth + 1)
    low = rng.randint(0, 2)
    high = low + rng.randint(0, 2)
    schema = {"type": "array", "items": item.schema, "minItems": low, "maxItems": high}
    return Made(schema, lambda r: [item.value(r) for _ in range(r.randint(low, high))])


def _union(rng: random.Random, depth: int) -> Made:
    choices = [_any(rng, depth + 1) for _ in range(rng.randint(2, 3))]
    return Made({"anyOf": [choice.schema for choice in choices]}, lambda r: r.choice(choices).value(r))


def _object(rng: random.Random, depth: int) -> Made:
    names = rng.sample(("name", "size", "tags", "who", "caf\u00e9", "a b", 'q"uote', "next_step"), rng.randint(1, 4))
    parts = {name: _any(rng, depth + 1) for name in names}
    required = [name for name in names if rng.random() < 0.7] or names[:1]
    schema = {
        "type": "object",
        "properties": {name: part.schema for name, part in parts.items()},
        "required": required,
        "additionalProperties": False,
    }

    def value(r: random.Random) -> Any:
        return {name: part.value(r) for name, part in parts.items() if name in required or r.random() < 0.5}

    return Made(schema, value)


def _any(rng: random.Random, depth: int) -> Made:
    kinds = [_integer, _string, _enum, _const, _plain]
    if depth < DEPTH_MAX and rng.random() < 0.35:
        return rng.choice((_array, _union, _object))(rng, depth)
    return rng.choice(kinds)(rng)


def make_schema(seed: int) -> Made:
    """One schema of an object. Every third one keeps a part in `$defs`, every ninth refers to itself."""
    rng = random.Random(seed)
    made = _object(rng, 0)
    if seed % 3:
        return made
    inner = _object(rng, 1)
    own = made.schema["properties"]
    schema = {**made.schema, "properties": {**own, "part": {"$ref": "#/$defs/part"}}, "$defs": {"part": inner.schema}}
    if seed % 9 == 0:
        schema["properties"]["again"] = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}

    def value(r: random.Random) -> Any:
        whole = made.value(r) | ({"part": inner.value(r)} if r.random() < 0.7 else {})
        return whole | ({"again": None} if seed % 9 == 0 and r.random() < 0.5 else {})

    return Made(schema, value)


def make_tools(seed: int) -> dict[str, Made]:
    """One to three functions by name."""
    return {f"do_{place}": make_schema(1000 * seed + place) for place in range(1 + seed % 3)}


def wrapped(rng: random.Random, text: str) -> str:
    """A right answer as models like to give it."""
    return rng.choice(
        (
            text,
            f"\n  {text}\n",
            f"```json\n{text}\n```",
            f"```\n{text}```\nI hope that this helps!",
            f"Sure [as you asked], here it is:\n\n{text}\n\nLet me know.",
            f"See [1]. {text}",
        )
    )


def spoiled(rng: random.Random, value: Any) -> str:
    """A wrong answer: words, another type, members missing or too many, cut off, or broken."""
    text = json.dumps(value, ensure_ascii=False)
    return rng.choice(
        (
            "I would rather talk about the weather.",
            "",
            '"only a text"',
            "[]",
            json.dumps({"unheard_of": 1}),
            json.dumps({**value, "one_too_many": True}),
            text[: max(1, len(text) * 2 // 3)],
            text[:-1],
            text.replace('"', "'"),
            text.replace("{", "{ // a comment\n", 1),
            f"```json\n{text[:-1]}\n```",
            text[:-1] + ', "a": NaN}',
        )
    )
