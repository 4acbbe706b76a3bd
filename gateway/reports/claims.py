"""What a provider says that it charged: an export of OpenRouter's, or the CSV of an invoice, as rows of one shape.

https://openrouter.ai/docs/api-reference (activity, generation).
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from io import StringIO
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.reports.money import NANO_PER_USD
from providers.json_values import elements, members

FILE_MAX_BYTES: Final = 256 * 1024 * 1024
"""An export of a provider's."""
CLAIMS_MAX: Final = 2_000_000
"""Rows of one."""
AMOUNT_MAX_CHARS: Final = 40
"""Of one number."""
GUESSES: Final[Mapping[str, tuple[str, ...]]] = {
    "date": ("date", "day", "created_at", "timestamp", "time", "usage_date", "start_time", "start"),
    "model": ("model", "model_name", "model_id", "model_permaslug", "sku", "line_item", "description"),
    "cost": ("cost_usd", "total_cost", "cost", "amount_usd", "usage", "amount", "total", "charge", "price"),
    "id": ("generation_id", "id", "request_id", "upstream_id"),
    "input_tokens": ("native_tokens_prompt", "prompt_tokens", "input_tokens", "tokens_prompt", "tokens_in"),
    "output_tokens": (
        *("native_tokens_completion", "completion_tokens", "output_tokens", "tokens_completion", "tokens_out"),
    ),
    "requests": ("requests", "num_requests", "request_count", "count"),
}
"""By what it is, the names that a column may have, likely ones first; compared without case, spaces and dashes."""
NEEDED: Final = ("date", "model", "cost")
_AMOUNT: Final = re.compile(
    r"(-?)\$?((?:\d{1,3}(?:,\d{3})+|\d{1,15})?(?:\.\d{0,30})?(?:[eE]-?\d{1,2})?)(?: ?USD)?", re.ASCII
)
_DAY: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ].*)?", re.ASCII | re.DOTALL)


class UnreadableClaimsError(ValueError):
    """The file is no list of charges."""


class Claim(Struct, frozen=True, gc=False):
    """One row of what a provider says. Money in nano-USD, rounded half to even."""

    day: str
    """YYYY-MM-DD, of UTC."""
    model: str
    cost_in_nusd: int
    id: str | None = None
    """The provider's own name for an answer; None: the row is a sum."""
    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


def read_claims(data: bytes, columns: Mapping[str, str]) -> tuple[Claim, ...]:
    """The rows of a file: JSON (one object, a list, or one object a line), or CSV with a line of headings.

    Args:
        data: Of the file.
        columns: By what it is (as in GUESSES), the name of its column or member; others are guessed.

    Raises:
        UnreadableClaimsError: It cannot be understood; the message says where.
    """
    rows = _json_rows(data) if data.lstrip()[:1] in (b"{", b"[") else _csv_rows(data)
    found: list[Claim] = []
    named: dict[str, str] | None = None
    for number, row in enumerate(rows, 1):
        if named is None:
            named = _named([*row], columns)
        if number > CLAIMS_MAX:
            raise UnreadableClaimsError(f"it has more than {CLAIMS_MAX} rows")
        try:
            found.append(_claim(row, named))
        except ValueError as error:
            raise UnreadableClaimsError(f"row {number}: {error}") from None
    return tuple(found)


def _json_rows(data: bytes) -> Iterator[Mapping[str, Any]]:
    # Numbers stay what they are written as: no cost passes through a float.
    decoder = msgspec.json.Decoder(float_hook=Decimal)
    try:
        whole = decoder.decode(data)
    except msgspec.DecodeError:
        whole = _json_lines(data, decoder)
    inside = members(whole).get("data", whole)
    for row in elements(inside) or ([inside] if members(inside) else []):
        # A generation is one object in `data`, in a list of answers too.
        yield members(members(row).get("data")) or members(row)


def _json_lines(data: bytes, decoder: msgspec.json.Decoder[Any]) -> list[Any]:
    try:
        return decoder.decode_lines(data)
    except msgspec.DecodeError as error:
        raise UnreadableClaimsError(f"it is no JSON: {error}") from error


def _csv_rows(data: bytes) -> Iterator[Mapping[str, Any]]:
    text = data.decode("utf-8-sig", "replace")
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    try:
        yield from csv.DictReader(StringIO(text), delimiter=delimiter, restkey="")
    except csv.Error as error:
        raise UnreadableClaimsError(f"it is no CSV: {error}") from error


def _named(names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """What each column is called, as said or guessed."""
    plain = {_plain(name): name for name in reversed(names)}
    found: dict[str, str] = {}
    for what, guesses in GUESSES.items():
        said = columns.get(what)
        if said is not None and said not in names:
            raise UnreadableClaimsError(f"it has no column {said!r}, only {', '.join(names)}")
        name = said or next((plain[guess] for guess in guesses if guess in plain), None)
        if name is not None:
            found[what] = name
    if missing := [what for what in NEEDED if what not in found]:
        raise UnreadableClaimsError(f"which column is the {missing[0]}? It has {', '.join(names)}")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _claim(row: Mapping[str, Any], named: Mapping[str, str]) -> Claim:
    found = {what: row.get(name) for what, name in named.items()}
    name = found.get("id")
    return Claim(
        day=_day(found["date"]),
        model=str(found["model"] or ""),
        cost_in_nusd=nano_of(found["cost"]),
        id=str(name) if name else None,
        requests=_count(found.get("requests")),
        input_tokens=_count(found.get("input_tokens")),
        output_tokens=_count(found.get("output_tokens")),
    )


def nano_of(value: Any) -> int:
    """An amount of dollars in nano-USD, rounded half to even: a number, or text as $1,234.50.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        amount = Decimal(value)
    else:
        text = str(value or "").strip()
        found = _AMOUNT.fullmatch(text) if len(text) <= AMOUNT_MAX_CHARS else None
        if found is None or not any(one.isdigit() for one in found[2]):
            raise ValueError(f"{text[:AMOUNT_MAX_CHARS]!r} is no amount of dollars")
        amount = Decimal(f"{found[1]}{found[2].replace(',', '')}")
    if not amount.is_finite() or abs(amount) > NANO_PER_USD:
        raise ValueError(f"{amount} is no amount of dollars")
    return int((amount * NANO_PER_USD).quantize(Decimal(1), ROUND_HALF_EVEN))


def _day(value: Any) -> str:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool) and 0 <= value < 1 << 40:
        return datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%d")
    text = str(value or "").strip()
    if (found := _DAY.fullmatch(text)) is None:
        raise ValueError(f"{text[:AMOUNT_MAX_CHARS]!r} is no day: it begins as 2026-01-31 does")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.fromisoformat(found[1])
    return (moment.astimezone(UTC) if moment.tzinfo else moment).strftime("%Y-%m-%d")


def _count(value: Any) -> int | None:
    try:
        return None if value in {None, ""} else int(Decimal(str(value).replace(",", "")))
    except (InvalidOperation, ValueError, OverflowError):
        return None
