"""Judges values by JSON Schema, with the `jsonschema` library, which is loaded when the first schema comes.

Schemas come from clients, so they are bounded, never fetch anything, and a bad one is told apart from a bad value.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import msgspec

SCHEMA_MAX_BYTES: Final = 64 * 1024
COMPLAINT_MAX_CHARS: Final = 300
PATTERN_MAX_CHARS: Final = 500
PATTERN_TEXT_MAX_CHARS: Final = 2_000
"""A longer text is not judged by a pattern."""
OPEN_REPEATS_MAX: Final = 2


class BadSchemaError(ValueError):
    """The schema itself cannot be used."""


def check_schema(schema: Any) -> None:
    """Refuse a schema that cannot be used.

    Raises:
        BadSchemaError: It is too large, is no JSON Schema, or refers to something outside itself.
    """
    encoded = msgspec.json.encode(schema)
    if len(encoded) > SCHEMA_MAX_BYTES:
        raise BadSchemaError(f"the schema is over {SCHEMA_MAX_BYTES} bytes")
    _validator(encoded)


def complaint(value: Any, schema: Any) -> str | None:
    """What is wrong with the value by the schema, in one line; None where nothing is.

    Raises:
        BadSchemaError: The schema cannot be used.
    """
    validator = _validator(msgspec.json.encode(schema))
    try:
        error = next(iter(validator.iter_errors(value)), None)
    except Exception as failure:  # the library raises many kinds for references that lead nowhere, and for deep nesting
        raise BadSchemaError(f"the schema cannot be followed: {type(failure).__name__}") from failure
    if error is None:
        return None
    path = "/".join(str(step) for step in error.absolute_path)
    return f"{path + ': ' if path else ''}{error.message}"[:COMPLAINT_MAX_CHARS]


@lru_cache(maxsize=64)
def _validator(encoded: bytes) -> Any:
    jsonschema = import_module("jsonschema")
    referencing = import_module("referencing")
    schema = msgspec.json.decode(encoded)
    if not isinstance(schema, dict | bool):
        raise BadSchemaError("a schema is an object")
    try:
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        kind = jsonschema.validators.extend(kind, {"pattern": _judge_pattern, "patternProperties": None})
        return kind(schema, registry=referencing.Registry())  # an empty registry: nothing is ever fetched
    except jsonschema.exceptions.SchemaError as error:
        raise BadSchemaError(f"the schema is not a JSON Schema: {error.message[:200]}") from error
    except RecursionError:
        raise BadSchemaError("the schema nests too deep") from None


def _judge_pattern(_validator: Any, pattern: Any, value: Any, _schema: Any) -> Iterator[Exception]:
    """`pattern`, where the expression cannot run for ever; another one is not judged."""
    if not isinstance(value, str) or len(value) > PATTERN_TEXT_MAX_CHARS:
        return
    if isinstance(pattern, str) and is_quick(pattern) and re.search(pattern, value) is None:
        yield import_module("jsonschema").ValidationError(f"{value[:50]!r} does not match {pattern!r}")


def is_quick(pattern: str) -> bool:
    """Whether matching takes time in proportion to the text: no repeated groups, few open repeats, no references.

    Conservative: it also turns away many an expression that would do no harm.
    """
    if len(pattern) > PATTERN_MAX_CHARS or re.search(r"\)[*+{?]|\\[1-9]|\(\?P?[=<!]", pattern):
        return False
    return len(re.findall(r"[*+]|\{\d*,\d*\}", re.sub(r"\\.", "", pattern))) <= OPEN_REPEATS_MAX
