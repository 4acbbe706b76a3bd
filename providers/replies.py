"""What a model's text holds when it was asked for JSON in words: JSON values, and calls of functions. Pure.

Models put fences and prose around what was asked for, and are cut off in the middle of it. What is read here is never
less than what the model wrote: the complete inner part of a value that is itself broken is not the answer.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

from providers.json_values import elements, members

SCANNED_MAX: Final = 50
"""Opening braces looked at when JSON is searched in prose."""
NO_JSON: Final = "the reply holds no valid JSON"


class _NoNumberError(ValueError):
    """NaN or an infinity: Python would write it, and nobody else could read it."""


def _refuse_constant(name: str) -> Any:
    raise _NoNumberError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NoNumberError(text)
    return number


# Not strict: models break lines inside strings, which can only mean one thing.
_decoder = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, parse_float=_finite)


def json_values(text: str) -> Iterator[Any]:
    """The JSON values in a text: the whole of it, or the objects and arrays that stand in it one after another."""
    stripped = text.strip()
    try:
        value, end = _decoder.raw_decode(stripped)
        if end == len(stripped):
            yield value
            return
    except (ValueError, RecursionError):
        pass
    at = 0
    for _ in range(SCANNED_MAX):
        found = [place for place in (stripped.find("{", at), stripped.find("[", at)) if place >= 0]
        if not found:
            return
        try:
            value, at = _decoder.raw_decode(stripped, min(found))
        except json.JSONDecodeError as error:
            if error.pos >= len(stripped) or error.msg.startswith("Unterminated"):
                return  # it was cut off: what is complete inside it is not the answer
            at = max(min(found) + 1, error.pos)  # behind what was already read as part of it
            continue
        except (ValueError, RecursionError):
            return
        yield value


def find_json(text: str) -> tuple[Any, str | None]:
    """The first JSON value in a text (fenced, or with words around it), or why there is none."""
    for value in json_values(text):
        return value, None
    return None, NO_JSON


def parse_json(text: str) -> Any:
    """JSON text as its value, and any other text as itself."""
    try:
        value, end = _decoder.raw_decode(text.strip())
    except (ValueError, RecursionError):
        return text
    return value if end == len(text.strip()) else text


def write_json(value: Any) -> str | None:
    """A value as JSON text that everybody can read, or None where it holds half a character."""
    written = json.dumps(value, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        return None
    return written


def calls_in(value: Any) -> list[tuple[str, Any]] | str | None:
    """The calls that a reply makes, in any of the forms that models use.

    None where it makes none, and in words what is wrong where it means to and does not.
    """
    told = members(value)
    if "tool_calls" in told:
        sent = told["tool_calls"]
        listed: list[Any] = [sent] if members(sent) else elements(sent)
        if not listed:
            return None if "content" in told else '"tool_calls" is not a list of calls'
    else:
        listed = [told] if told else elements(value)
        if not listed or not all(_looks_like_a_call(call) for call in listed):
            return None
    calls: list[tuple[str, Any]] = []
    for call in map(members, listed):
        function = members(call.get("function")) or call
        name = function.get("name")
        if not isinstance(name, str):
            return "a call has no name"
        arguments: Any = function.get("arguments", function.get("parameters"))
        if isinstance(arguments, str):
            arguments = parse_json(arguments) if arguments.strip() else None
        none: dict[str, Any] = {}
        calls.append((name, none if arguments is None else arguments))
    return calls


def _looks_like_a_call(value: Any) -> bool:
    """Whether an object that nobody announced as a call is one: a name alone may be anything's."""
    call = members(value)
    function = members(call.get("function")) or call
    return isinstance(function.get("name"), str) and ("arguments" in function or "parameters" in function)
