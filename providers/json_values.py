"""Decoded JSON of a shape nobody promised, taken apart without surprises."""

from typing import Any, cast


def members(value: object) -> dict[str, Any]:
    """The members of a JSON object; none where the value is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def elements(value: object) -> list[Any]:
    """The elements of a JSON array; none where the value is something else."""
    if isinstance(value, tuple):
        return [*value]
    return cast("list[object]", value) if isinstance(value, list) else []


def count_structure(body: bytes) -> int:
    """At least as many as the members and elements in a JSON text: what it takes to hold it once it is decoded."""
    return body.count(b",") + body.count(b"{") + body.count(b"[")
