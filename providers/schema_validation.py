"""Judges values by JSON Schema, with the `jsonschema` library, which is loaded when the first schema comes.

Schemas come from clients, so they are bounded, never fetch anything, and a bad one is told apart from a bad value.
"""

import re
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import msgspec

from providers.json_values import elements, members

SCHEMA_MAX_BYTES: Final = 64 * 1024
COMPLAINT_MAX_CHARS: Final = 300
PATTERN_MAX_CHARS: Final = 500
PATTERN_TEXT_MAX_CHARS: Final = 2_000
"""A longer text is not judged by a pattern."""
OPEN_REPEATS_MAX: Final = 2
STEPS_MAX: Final = 50_000
"""Keywords looked at for one value. Schemas can refer to themselves so that it doubles with every level."""
COMPARED_ITEMS_MAX: Final = 1_000
"""Items that may have to differ from one another: comparing takes the square of their number."""

_Keyword = Callable[[Any, Any, Any, Any], Any]


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
    _steps.left = STEPS_MAX
    try:
        error = next(iter(validator.iter_errors(value)), None)
    except _TooManyStepsError:
        raise BadSchemaError(f"judging an answer by the schema takes over {STEPS_MAX} steps; simplify it") from None
    except Exception as failure:  # the library raises many kinds for references that lead nowhere, and for deep nesting
        raise BadSchemaError(f"the schema cannot be followed: {type(failure).__name__}") from failure
    if error is None:
        return None
    path = "/".join(str(step) for step in error.absolute_path)
    return f"{path + ': ' if path else ''}{error.message}"[:COMPLAINT_MAX_CHARS]


class _TooManyStepsError(Exception):
    """This schema is not worth following."""


class _Steps(threading.local):
    """What is left of STEPS_MAX for the value that is being judged."""

    left = STEPS_MAX


_steps = _Steps()


@lru_cache(maxsize=64)
def _validator(encoded: bytes) -> Any:
    jsonschema = import_module("jsonschema")
    referencing = import_module("referencing")
    schema = msgspec.json.decode(encoded)
    if not isinstance(schema, dict | bool):
        raise BadSchemaError("a schema is an object")
    try:
        _check_parts(schema, is_root=True)
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        own = {**kind.VALIDATORS, "pattern": _judge_pattern, "uniqueItems": _bounded(kind.VALIDATORS["uniqueItems"])}
        kind = jsonschema.validators.extend(kind, {name: _counted(judge) for name, judge in own.items()})
        return kind(schema, registry=referencing.Registry())  # an empty registry: nothing is ever fetched
    except jsonschema.exceptions.SchemaError as error:
        raise BadSchemaError(f"the schema is not a JSON Schema: {error.message[:200]}") from error
    except RecursionError:
        raise BadSchemaError("the schema nests too deep") from None
    except BadSchemaError:
        raise
    except Exception as failure:  # a `$schema` or `$id` that is no URI makes the library raise anything
        raise BadSchemaError(f"the schema cannot be used: {type(failure).__name__}") from failure


def _check_parts(schema: Any, *, is_root: bool = False) -> None:
    """Refuse what would get around our own judging of patterns, wherever in the schema it stands.

    Raises:
        BadSchemaError: A part names a draft of its own, or the names of members by a pattern that may run for ever.
    """
    for key, value in members(schema).items():
        if key == "$schema" and isinstance(value, str) and not is_root:
            raise BadSchemaError("the schema names a `$schema` inside itself; only its root may")
        if key == "patternProperties":
            slow = [pattern for pattern in members(value) if not is_quick(pattern)]
            if slow:
                raise BadSchemaError(
                    f"the pattern {slow[0][:100]!r} of patternProperties may run for ever; simplify it"
                )
        _check_parts(value)
    for value in elements(schema):
        _check_parts(value)


def _counted(judge: _Keyword) -> _Keyword:
    """The same keyword, which takes one step."""

    def count(validator: Any, keyword: Any, value: Any, schema: Any) -> Any:
        _steps.left -= 1
        if _steps.left < 0:
            raise _TooManyStepsError
        return judge(validator, keyword, value, schema)

    return count


def _bounded(judge: _Keyword) -> _Keyword:
    """`uniqueItems`, which is not met by more items than can be compared."""

    def judge_unique(validator: Any, keyword: Any, value: Any, schema: Any) -> Any:
        if keyword is True and len(elements(value)) > COMPARED_ITEMS_MAX:
            return (import_module("jsonschema").ValidationError(f"over {COMPARED_ITEMS_MAX} items must differ"),)
        return judge(validator, keyword, value, schema)

    return judge_unique


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
