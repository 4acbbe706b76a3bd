"""Turns what is wrong with a configuration into complaints: file:line, what it is, and what to do about it."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from gateway.config.fields import COMPLAINT
from gateway.config.schema import ConfigFile
from gateway.config.secrets import looks_like_key, show
from gateway.config.source import Node, Path
from gateway.errors import ConfigProblem

PROBLEMS_MAX = 100
NEAR_MAX = 3
NEAR_CUTOFF = 0.6

_KEY_MARK = "[key]"
_TYPES = {
    "string_type": ("text", "write text; put quotes around it if it looks like a number"),
    "int_type": ("a whole number", "write a whole number without quotes, separators or unit"),
    "int_parsing": ("a whole number", "write a whole number without quotes, separators or unit"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "list_type": ("a list", "write a list: [a, b], or one `- item` per line"),
    "dict_type": ("a mapping", "write `key: value` lines, indented below the key"),
    "mapping_type": ("a mapping", "write `key: value` lines, indented below the key"),
    "model_type": ("a mapping", "write `key: value` lines, indented below the key"),
    "model_attributes_type": ("a mapping", "write `key: value` lines, indented below the key"),
}
_BOUNDS = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}


class Located(Struct, frozen=True):
    """A file's name and values: what it takes to say where something is wrong."""

    file: str
    root: Node

    def complaint(self, path: Path, message: str, fix: str) -> ConfigProblem:
        """A complaint about the key or item at `path`."""
        return ConfigProblem(f"{self.file}:{self.root.line_of(path)}", message, fix)


def near(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three of the `known` names that `name` may have been meant for, nearest first."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower()[:256], list(folded), NEAR_MAX, NEAR_CUTOFF)
    return tuple(folded[candidate] for candidate in close)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` or nothing, to go at the end of a message."""
    names = near(name, known)
    return "; did you mean " + " or ".join(f'"{candidate}"' for candidate in names) + "?" if names else ""


def spell_fix(name: str, known: Sequence[str], otherwise: str) -> str:
    """The remedy for an unknown name: its nearest neighbour, or `otherwise`."""
    names = near(name, known)
    return f'write "{names[0]}"' if names else otherwise


def pasted_keys(located: Located) -> dict[Path, ConfigProblem]:
    """Credentials written out anywhere in the file, by path. Never quoted in what is said of them."""
    found: dict[Path, ConfigProblem] = {}
    pending: list[tuple[Path, Node]] = [((), located.root)]
    while pending:
        path, node = pending.pop()
        texts: list[tuple[Path, object]] = [(path, node.scalar)]
        if node.entries is not None:
            pending.extend(((*path, key), child) for key, child in node.entries.items())
            texts = [((*path, key), key) for key in node.entries]
        elif node.items is not None:
            pending.extend(((*path, index), child) for index, child in enumerate(node.items))
        for place, text in texts:
            if isinstance(text, str) and looks_like_key(text):
                found[place] = located.complaint(
                    place,
                    f"what looks like a key or password is written out at {_words(place)}",
                    "revoke it, then put the new one into the environment and write env:NAME "
                    "(or into a file of mode 0600 and write file:/path)",
                )
    return found


def schema_complaints(located: Located, errors: Sequence[ErrorDetails], skip: Iterable[Path]) -> list[ConfigProblem]:
    """What pydantic found, in the user's words; errors at the paths of `skip` were already told."""
    told = set(skip)
    problems: list[ConfigProblem] = []
    for error in errors:
        path = tuple(step for step in error["loc"] if step != _KEY_MARK)
        if path in told:
            continue
        message, fix = translate(path, error)
        problems.append(located.complaint(path, message, fix))
    return problems


def in_order(problems: Iterable[ConfigProblem]) -> tuple[ConfigProblem, ...]:
    """By line, without repeats, bounded."""

    def line(problem: ConfigProblem) -> tuple[int, str]:
        number = problem.where.rpartition(":")[2]
        return (int(number) if number.isdigit() else 0, problem.message)

    unique = sorted({(problem.where, problem.message): problem for problem in problems}.values(), key=line)
    if len(unique) <= PROBLEMS_MAX:
        return tuple(unique)
    rest = ConfigProblem(
        unique[-1].where.rpartition(":")[0], f"and {len(unique) - PROBLEMS_MAX} more", "mend these first"
    )
    return (*unique[:PROBLEMS_MAX], rest)


def translate(path: Path, error: ErrorDetails) -> tuple[str, str]:
    """What one of pydantic's errors means to the user, and what to do about it."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    place = _words(path)
    found = (f"{place}: {error['msg']}", "see docs/reference/providers.schema.json for what belongs here")
    if kind == COMPLAINT:
        found = (f"{place}: {context['message']}", str(context["fix"]))
    elif kind == "extra_forbidden":
        found = _unknown_key(path)
    elif kind == "missing":
        found = (f'{_words(path[:-1])} needs "{path[-1]}"', f"add `{path[-1]}:` here")
    elif kind == "literal_error":
        found = _not_among(place, value, str(context["expected"]))
    elif kind in _TYPES:
        wanted, fix = _TYPES[kind]
        found = (f"{place} is {_describe(path, value)}, not {wanted}", fix)
    elif kind in _BOUNDS:
        bound = next(iter(context.values()))
        found = (f"{place} is {show(value)}", f"write a whole number {_BOUNDS[kind]} {bound}")
    elif kind == "too_short":
        found = (f"{place} is empty", "name at least one, or leave the key out")
    elif kind == "string_too_long":
        found = (f"{place} is too long", f"use at most {context['max_length']} characters")
    return found


def _unknown_key(path: Path) -> tuple[str, str]:
    name, parent = str(path[-1]), path[:-1]
    known = known_keys(parent)
    what = "quirk" if parent[-1:] == ("quirks",) else "key"
    where = _words(parent) if parent else "the file"
    message = f"unknown {what} {show(name)} in {where}{did_you_mean(name, known)}"
    return message, spell_fix(name, known, "take it out; known here: " + ", ".join(known))


def _not_among(place: str, value: Any, expected: str) -> tuple[str, str]:
    known = [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]
    name = value if isinstance(value, str) else str(value)
    choices = ", ".join(known)
    message = f"{place} is {show(name)}; it can be {choices}{did_you_mean(name, known)}"
    return message, spell_fix(name, known, f"write one of {choices}")


def known_keys(path: Path) -> list[str]:
    """The keys that may stand in the mapping at `path`."""
    model: Any = ConfigFile
    steps = iter(path)
    for step in steps:
        if not _is_section(model):
            return []
        field = _field(model, str(step))
        if field is None:
            return []
        model, skips = field
        if skips:
            next(steps, None)
    if _is_section(model):
        return [field.alias or name for name, field in model.model_fields.items()]
    return []


def _field(model: type[BaseModel], key: str) -> tuple[Any, bool] | None:
    """The model below `key`, and whether a name or position stands between."""
    for name, field in model.model_fields.items():
        if (field.alias or name) == key:
            return _inner_model(field.annotation)
    return None


def _inner_model(annotation: Any) -> tuple[Any, bool]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return (annotation if _is_section(annotation) else None), False
    container = origin in {list, Mapping}
    for argument in arguments:
        model, _ = _inner_model(argument)
        if model is not None:
            return model, container
    return None, container


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _words(path: Path) -> str:
    """A path as it would be said: `providers.my-vllm.models.m`. A key that could be a credential is masked."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + show(step).strip('"')
    return text or "the file"


def _describe(path: Path, value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    # A number or a word in a key's place may be the key.
    if {"api_key", "client_keys", "admin_token", "proxy"} & set(path):
        return "something else"
    return show(value)
