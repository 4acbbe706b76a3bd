"""JSON Schema to GBNF, the grammar language of llama.cpp: what is sampled under it is JSON, and fits the schema.

Written here rather than taken from the engine's package, whose converter lets control characters into strings, copies
text of the schema unescaped into the grammar and drops keywords it does not know. Here a keyword that no grammar can
enforce is refused by name: an answer is never less constrained than what was asked. Everything is bounded, since a
schema is a client's input.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from local_backend.errors import InvalidRequestError
from local_backend.gbnf import FORMATS, PRIMITIVES, literal
from local_backend.integer_ranges import integer_expression

SCHEMA_MAX_BYTES: Final = 64 * 1024
DEPTH_MAX: Final = 32
REPEAT_MAX: Final = 1000
REPEATS_TOTAL_MAX: Final = 20_000
RULES_MAX: Final = 4000
GRAMMAR_MAX_BYTES: Final = 1 << 20
TIME_MAX_S: Final = 1.0

_ANNOTATIONS: Final = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "example"}
    | {"deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "strict", "name", "discriminator"}
)
"""Keywords that constrain nothing."""
_PER_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "format"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_TYPES: Final = tuple(_PER_TYPE)


def schema_to_gbnf(schema: Any) -> str:
    """The grammar of all JSON texts that fit a schema; of all JSON objects for None.

    Raises:
        InvalidRequestError: Not a schema, one over the limits, or one that no grammar can enforce.
    """
    if schema is None:
        schema = {"type": "object"}
    try:
        size = len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace"))
    except (RecursionError, ValueError) as error:
        raise _refusal("is nested too deeply") from error
    if size > SCHEMA_MAX_BYTES:
        raise _refusal(f"is {size} bytes long; the limit is {SCHEMA_MAX_BYTES}")
    return _Converter(schema, time.monotonic).convert()


def _refusal(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"the JSON schema {what}", param="response_format")


class _Converter:
    """One conversion. `visit` returns a GBNF expression that may stand anywhere an item may."""

    def __init__(self, schema: Any, clock: Callable[[], float]) -> None:
        self._root = schema
        self._clock = clock
        self._ends_at = clock() + TIME_MAX_S
        self._rules: dict[str, str] = {}
        self._references: dict[str, str] = {}
        self._repeats = 0
        self._bytes = 0

    def convert(self) -> str:
        root = self._visit(self._root, 0)
        self._add("root", f'" "? {root}')
        return "\n".join(f"{name} ::= {body}" for name, body in self._rules.items()) + "\n"

    # --- rules ---

    def _add(self, name: str, body: str) -> str:
        self._rules[name] = body
        self._bytes += len(body)
        if len(self._rules) > RULES_MAX or self._bytes > GRAMMAR_MAX_BYTES:
            raise _refusal("needs too large a grammar; simplify it")
        return name

    def _new(self, body: str) -> str:
        return self._add(f"r{len(self._rules)}", body)

    def _primitive(self, name: str) -> str:
        if name not in self._rules:
            body, needed = PRIMITIVES[name]
            self._add(name, body)
            for each in needed:
                self._primitive(each)
        return name

    def _repeat(self, item: str, least: int, most: int | None) -> str:
        count = least if most is None else most
        self._repeats += count
        if count > REPEAT_MAX or self._repeats > REPEATS_TOTAL_MAX:
            raise _refusal(f"repeats something {count} times; the limit is {REPEAT_MAX} ({REPEATS_TOTAL_MAX} in all)")
        if most is not None and most < least:
            raise _refusal(f"asks for at least {least} and at most {most} of something")
        if most == 0:
            return '""'
        return f"{item}{{{least},{'' if most is None else most}}}"

    # --- schemas ---

    def _visit(self, schema: Any, depth: int) -> str:
        if depth > DEPTH_MAX:
            raise _refusal(f"is nested more than {DEPTH_MAX} deep")
        if self._clock() > self._ends_at:
            raise _refusal(f"takes more than {TIME_MAX_S:.0f} s to convert; simplify it")
        if schema is True:
            return self._primitive("value")
        if not isinstance(schema, dict):
            raise _refusal(f"has {json.dumps(schema)[:40]} where a schema must be")
        members = cast("dict[str, Any]", schema)
        for keyword, visit in (
            ("$ref", self._visit_reference),
            ("const", self._visit_constant),
            ("enum", self._visit_enum),
            ("anyOf", self._visit_union),
            ("oneOf", self._visit_union),
            ("allOf", self._visit_all),
        ):
            if keyword in members:
                return visit(members, keyword, depth)
        return self._visit_typed(members, depth)

    def _visit_reference(self, schema: Mapping[str, Any], keyword: str, depth: int) -> str:
        self._check_alone(schema, keyword)
        pointer = _own_pointer(schema)
        name = self._references.get(pointer)
        if name is None:
            name = self._references[pointer] = f"ref{len(self._references)}"
            self._rules[name] = '""'
            self._add(name, self._visit(self._resolve(pointer), depth + 1))
        return name

    def _resolve(self, pointer: str) -> Any:
        target: Any = self._root
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                target = _member(target, key)
            except (KeyError, IndexError, ValueError, TypeError):
                raise _refusal(f"refers to {pointer[:80]!r}, which it does not have") from None
        return target

    def _visit_constant(self, schema: Mapping[str, Any], keyword: str, _depth: int) -> str:
        self._check_alone(schema, keyword, "type")
        return literal(json.dumps(schema[keyword], ensure_ascii=False))

    def _visit_enum(self, schema: Mapping[str, Any], keyword: str, _depth: int) -> str:
        self._check_alone(schema, keyword, "type")
        values = _list(schema, keyword)
        return self._new(" | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in values))

    def _visit_union(self, schema: Mapping[str, Any], keyword: str, depth: int) -> str:
        self._check_alone(schema, keyword, "type")
        choices = _list(schema, keyword)
        return self._new(" | ".join(self._visit(choice, depth + 1) for choice in choices))

    def _visit_all(self, schema: Mapping[str, Any], keyword: str, depth: int) -> str:
        """Objects described in parts become one object; anything else cannot be intersected by a grammar."""
        parts = _list(schema, keyword)
        if len(parts) == 1 and not (set(schema) - _ANNOTATIONS - {keyword}):
            return self._visit(parts[0], depth + 1)
        merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        own = {name: value for name, value in schema.items() if name != keyword}
        for part in [*parts, own]:
            self._merge(merged, part)
        return self._visit(merged, depth + 1)

    def _merge(self, merged: dict[str, Any], part: Any) -> None:
        part = _object(part, "an allOf")
        for _ in range(DEPTH_MAX):
            if "$ref" not in part:
                break
            self._check_alone(part, "$ref")
            part = _object(self._resolve(_own_pointer(part)), "an allOf")
        if "$ref" in part or part.get("type", "object") != "object":
            raise _refusal("has an allOf over something other than objects, which cannot be enforced here")
        self._check_alone(part, "type", *_PER_TYPE["object"])
        for name, value in _object(part.get("properties", {}), "properties").items():
            if name in merged["properties"] and merged["properties"][name] != value:
                raise _refusal(f"has an allOf that describes {name[:80]!r} twice, which cannot be enforced here")
            merged["properties"][name] = value
        merged["required"] += _required(part)
        if "additionalProperties" in part:
            merged["additionalProperties"] = part["additionalProperties"]

    def _check_alone(self, schema: Mapping[str, Any], *known: str) -> None:
        unknown = set(schema) - _ANNOTATIONS - set(known)
        if unknown:
            raise _refusal(
                f"uses {', '.join(sorted(map(repr, unknown)))[:200]}, which cannot be enforced here; leave it out"
            )

    def _visit_typed(self, schema: Mapping[str, Any], depth: int) -> str:
        named = schema.get("type", _implied_types(schema))
        kinds = [named] if isinstance(named, str) else _list({"type": named}, "type")
        if not all(kind in _TYPES for kind in kinds):
            raise _refusal(f"has the type {json.dumps(named)[:80]}, which is none of JSON's")
        self._check_alone(schema, "type", *(keyword for kind in kinds for keyword in _PER_TYPE[kind]))
        if set(kinds) == set(_TYPES) and not set(schema) - _ANNOTATIONS - {"type"}:
            return self._primitive("value")
        visits = [self._visit_kind(kind, schema, depth) for kind in kinds]
        return visits[0] if len(visits) == 1 else self._new(" | ".join(visits))

    def _visit_kind(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "object":
            return self._visit_object(schema, depth)
        if kind == "array":
            return self._visit_array(schema, depth)
        if kind == "string":
            return self._visit_string(schema)
        if kind == "integer":
            bounds = integer_expression(schema)
            return self._primitive("integer") if bounds is None else self._new(bounds)
        return self._primitive(kind)

    def _visit_string(self, schema: Mapping[str, Any]) -> str:
        kind = schema.get("format")
        limits = "minLength" in schema or "maxLength" in schema
        if kind is not None:
            if kind not in FORMATS or limits:
                raise _refusal(
                    f"asks for a string of format {json.dumps(kind)[:80]}, which cannot be enforced here; leave it out"
                )
            body, needed = FORMATS[kind]
            for each in needed:
                self._primitive(each)
            return self._new(f'"\\"" {body} "\\""')
        if not limits:
            return self._primitive("string")
        self._primitive("char")
        least, most = _count(schema, "minLength", 0), _count(schema, "maxLength", None)
        return self._new(f'"\\"" {self._repeat("char", least or 0, most)} "\\""')

    def _visit_array(self, schema: Mapping[str, Any], depth: int) -> str:
        self._primitive("space")
        items = schema.get("items", True)
        old_tuple = isinstance(items, list)
        first = _list(schema, "items" if old_tuple else "prefixItems") if old_tuple or "prefixItems" in schema else []
        least, most = _count(schema, "minItems", 0) or 0, _count(schema, "maxItems", None)
        if first:
            if not old_tuple and items is not False and "items" in schema:
                raise _refusal("has both prefixItems and items, which cannot be enforced here")
            if ("minItems" in schema or "maxItems" in schema) and (least, most) != (len(first), len(first)):
                raise _refusal("limits the length of an array with prefixItems otherwise than to their number")
            body = ' "," space '.join(self._visit(item, depth + 1) for item in first)
            return self._new(f'"[" space {body} space "]"')
        if items is False:
            return self._new('"[" space "]"')
        return self._new(f'"[" space {self._items(self._visit(items, depth + 1), least, most)} space "]"')

    def _items(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return self._repeat(item, least, most)
        more = self._new(f'"," space {item}')
        if least == 0:
            return f"({item} {self._repeat(more, 0, None if most is None else most - 1)})?"
        return f"{item} {self._repeat(more, least - 1, None if most is None else most - 1)}"

    def _visit_object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties = _object(schema.get("properties", {}), "properties")
        required = _required(schema)
        others = schema.get("additionalProperties", not properties)
        missing = [name for name in required if name not in properties]
        if missing and others is False:
            raise _refusal(f"requires {missing[0][:80]!r} but does not allow it")
        if not properties and not missing and others is True:
            return self._primitive("object")
        self._primitive("space")
        pairs = [
            (
                f'{literal(json.dumps(name, ensure_ascii=False))} ":" space {self._visit(value, depth + 1)}',
                name in required,
            )
            for name, value in properties.items()
        ]
        pairs += [
            (f'{literal(json.dumps(name, ensure_ascii=False))} ":" space {self._primitive("value")}', True)
            for name in missing
        ]
        rest = None
        if others is not False and not properties:
            self._primitive("string")
            rest = f'string ":" space {self._visit(others, depth + 1)}'
        return self._new(f'"{{" space {self._members(pairs, rest)} space "}}"')

    def _members(self, pairs: list[tuple[str, bool]], rest: str | None) -> str:
        """Members in the order given, optional ones left out at will, commas only between two.

        From the back: `after` is what may follow a member, `tail` what may stand there with none before it.
        """
        after, tail = "", ""
        if rest is not None:
            more = self._new(f'"," space {rest}')
            after = self._new(f"{more}*")
            tail = self._new(f"({rest} {more}*)?")
        for pair, needed in reversed(pairs):
            name = self._new(pair)
            with_comma = f'"," space {name} {after}'.rstrip()
            alone = f"{name} {after}".rstrip()
            if needed:
                after, tail = self._new(with_comma), self._new(alone)
            else:
                tail = self._new(f"{alone} | {tail}") if tail else self._new(f"({alone})?")
                after = self._new(f"{with_comma} | {after}") if after else self._new(f"({with_comma})?")
        return tail


def _implied_types(schema: Mapping[str, Any]) -> list[str]:
    """Without a type, keywords speak for one; without those, anything goes."""
    named = [kind for kind, keywords in _PER_TYPE.items() if keywords & set(schema)]
    return named or list(_TYPES)


def _member(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return list(cast("Iterable[Any]", value))[int(key)]
    return value[key]


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refusal(f"has {name} where something is not an object")
    return cast("dict[str, Any]", value)


def _list(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    value = schema[keyword]
    if not isinstance(value, list) or not value:
        raise _refusal(f"has a {keyword} that is not a list of something")
    return list(cast("Iterable[Any]", value))


def _required(schema: Mapping[str, Any]) -> list[str]:
    names = _list(schema, "required") if schema.get("required") else []
    if not all(isinstance(name, str) for name in names):
        raise _refusal("has a `required` that is not a list of names")
    return names


def _own_pointer(schema: Mapping[str, Any]) -> str:
    pointer = schema["$ref"]
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        raise _refusal(f"refers to {str(pointer)[:80]!r}; only references into itself (#/...) are followed")
    return pointer


def _count(schema: Mapping[str, Any], keyword: str, default: int | None) -> int | None:
    value = schema.get(keyword, default)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise _refusal(f"has a {keyword} that is not a count")
