"""OpenAI chat completions on the way in: bytes to ChatRequest, in bounded time, with the member at fault named."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.errors import InvalidRequestError, PayloadTooLargeError
from providers.json_values import elements, members
from providers.messages import ChatRequest, unknown_members

STRUCTURE_MAX: Final = 200_000
"""Commas, braces and brackets outside strings. A body with more takes too long to take apart, whatever its size."""
STRINGS_MAX: Final = 200_000
DEPTH_MAX: Final = 64
COSTLY_NUMBERS_MAX: Final = 2_000
"""Numbers with an exponent or over LONG_NUMBER_CHARS characters. One takes up to 5 us to read, others 20 ns."""
LONG_NUMBER_CHARS: Final = 20
SMALL_BODY_BYTES: Final = 16 * 1024
"""Under this nothing can be over its bound, or take long, so nothing is counted."""
STEP_BYTES: Final = 2 * 1024 * 1024
"""As much of a body as is looked at in one step."""

_chat = msgspec.json.Decoder(ChatRequest)
_json = msgspec.json.Decoder()
_PATH = re.compile(r" - at `\$\.?(.*?)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_STRUCTURAL = b',:{[]}"'
_NUMERIC = b"0123456789.eE"
_NOT_OPENING = bytes(byte for byte in range(256) if byte not in b"{[")
_NEITHER = bytes(byte for byte in range(256) if byte not in _STRUCTURAL + _NUMERIC)
_NUMBERS = bytes(ord("0") if byte in b"0123456789." else ord("e") if byte in b"eE" else ord(" ") for byte in range(256))
"""Shows where numbers are: digits and points as `0`, exponent marks as `e`, all else blank."""
_MARKS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


def decode_chat(body: bytes) -> ChatRequest:
    """What a client asks.

    Members that nobody here knows end up in `ChatRequest.extra`. The body must have passed `check_structure`.

    Raises:
        InvalidRequestError: It is not JSON, or not a chat request; `param` names the member.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(_not_json(body, error)) from None
    except RecursionError:
        raise InvalidRequestError(_TOO_DEEP) from None


def _decode(body: bytes) -> ChatRequest:
    """The fast way where every member is known, else the slow one."""
    try:
        request = _chat.decode(body)
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error) and not (_param(error) or "").startswith("extra"):
            raise
        return _decode_with_unknown(body)
    if request.extra is not None:  # a client's own member of that name is as unknown as any other
        return _decode_with_unknown(body)
    if len(body) > DEPTH_MAX and len(body.translate(None, _NOT_OPENING)) > DEPTH_MAX:
        _check_depth(msgspec.to_builtins(request))
    return request


_TOO_DEEP = f"the body nests deeper than {DEPTH_MAX} levels"


def check_structure(body: bytes) -> Iterator[None]:
    """Refuse a body that would take too long to take apart. Yields between steps of at most some 15 ms each.

    Raises:
        PayloadTooLargeError: It has over STRUCTURE_MAX structural characters, STRINGS_MAX strings or
            COSTLY_NUMBERS_MAX costly numbers.
    """
    if len(body) <= SMALL_BODY_BYTES:
        return
    separators = costly = 0
    for start in range(0, len(body), STEP_BYTES):
        step = body[start : start + STEP_BYTES]
        separators += step.count(b",") + step.count(b"{") + step.count(b"[")
        yield
    if separators <= COSTLY_NUMBERS_MAX:
        return
    for start in range(0, len(body), STEP_BYTES):
        costly += _costly_numbers(body[start : start + STEP_BYTES])
        yield
    if separators > STRUCTURE_MAX or costly > COSTLY_NUMBERS_MAX:
        yield from _check_outside_strings(body)


def _check_outside_strings(body: bytes) -> Iterator[None]:
    """The same bounds, with what is only text taken away first. Yields as `check_structure` does."""
    kept: list[bytes] = []
    quotes = start = 0
    while start < len(body):
        step = body[start : start + STEP_BYTES]
        if (len(step) - len(step.rstrip(b"\\"))) % 2:  # do not part a backslash from what it escapes
            step = body[start : start + len(step) + 1]
        start += len(step)
        # Escaped backslashes and quotes would confuse what is inside a string and what is not.
        plain = step.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEITHER)
        quotes += plain.count(b'"')
        if quotes > 2 * STRINGS_MAX:
            raise PayloadTooLargeError(f"the body has over {STRINGS_MAX} strings; send less at once")
        kept.append(plain)
        yield
    outside = b" ".join(b"".join(kept).split(b'"')[::2])
    yield
    if len(outside.translate(None, _NUMERIC + b" ")) > 2 * STRUCTURE_MAX:
        raise PayloadTooLargeError(f"the body has over {STRUCTURE_MAX} JSON members and elements; send less at once")
    costly = 0
    for start in range(0, len(outside), STEP_BYTES):
        yield
        costly += _costly_numbers(outside[start : start + STEP_BYTES])
    if costly > COSTLY_NUMBERS_MAX:
        raise PayloadTooLargeError(
            f"the body has over {COSTLY_NUMBERS_MAX} numbers with an exponent or of {LONG_NUMBER_CHARS} digits and more"
        )


def _costly_numbers(text: bytes) -> int:
    """How many numbers in `text` are slow to read, strings being taken for numbers where they look like some."""
    shown = text.translate(_NUMBERS)
    return shown.count(b"0e") + shown.count(b"0" * LONG_NUMBER_CHARS)


def _decode_with_unknown(body: bytes) -> ChatRequest:
    """The slow way, for a body with members that nobody here knows."""
    sent = _json.decode(body)
    _check_depth(sent)
    known = msgspec.convert(_known_part(sent, ChatRequest), ChatRequest)
    extra = unknown_members(sent, msgspec.to_builtins(known))
    return msgspec.structs.replace(known, extra=extra)


def _known_part(sent: object, kind: Any) -> object:
    """`sent` without the members that the struct `kind`, or a struct inside it, does not have."""
    if isinstance(kind, _Elements):
        parts = elements(sent)
        return [_known_part(part, kind.of) for part in parts] if parts else sent
    if kind is None or not (found := members(sent)):
        return sent
    fields = _fields(kind)
    return {key: _known_part(value, fields[key]) for key, value in found.items() if key in fields}


class _Elements(msgspec.Struct, frozen=True):
    """Stands for `tuple[of, ...]` in a table of fields."""

    of: Any


def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A struct's members and, for those that hold structs, what kind: found once per struct."""
    table = _FIELDS.get(kind)
    if table is None:
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101 (kind is a Struct)
        table = {field.encode_name: _struct_in(field.type) for field in info.fields if field.name != "extra"}
        _FIELDS[kind] = table
    return table


_FIELDS: dict[type[msgspec.Struct], dict[str, Any]] = {}


def _struct_in(info: msgspec.inspect.Type) -> Any:
    """The struct, or the elements that are structs, among the types that a member may have."""
    choices = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    for choice in choices:
        if isinstance(choice, msgspec.inspect.StructType):
            return choice.cls
        if isinstance(choice, msgspec.inspect.VarTupleType):
            return _Elements(_struct_in(choice.item_type))
    return None


def _check_depth(value: Any) -> None:
    """Walk level by level, so that depth costs no stack.

    Raises:
        InvalidRequestError: Deeper than DEPTH_MAX.
    """
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in (*members(node).values(), *elements(node)) if _is_nested(child)]
        if not level:
            return
    raise InvalidRequestError(_TOO_DEEP)


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list | tuple)


def _invalid(error: msgspec.ValidationError) -> InvalidRequestError:
    """The decoder's complaint as ours: its JSON path becomes `param`."""
    param = _param(error)
    what = _PATH.sub("", str(error))
    what = what[:1].lower() + what[1:].replace("`", "'")
    where = f"{param}: " if param else "the body: "
    return InvalidRequestError(f"{where}{what}", param=param)


def _param(error: msgspec.ValidationError) -> str | None:
    """The member at fault, as far as the decoder says: it does not name the members of a free-form object."""
    text = str(error)
    match = _PATH.search(text)
    path = match.group(1).partition("[...]")[0] if match else ""
    if missing := _MISSING.search(text):
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
    return path or None


def _not_json(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "the body is empty; send a JSON object with `model` and `messages`"
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return f"the body starts with the byte order mark of {encoding}; send UTF-8 without one"
    if isinstance(error, UnicodeDecodeError):
        return "the body is not valid UTF-8"
    return f"the body is not valid JSON: {error}"
