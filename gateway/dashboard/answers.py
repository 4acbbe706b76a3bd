"""What an answer looks like: the headers that every one carries, JSON, CSV, and errors."""

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from providers.errors import MixgateError

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer, errors too."""
NO_STORE: Final = (b"cache-control", b"no-store")
FOR_EVER: Final = (b"cache-control", b"public, max-age=31536000, immutable")
ASK_AGAIN: Final = (b"cache-control", b"no-cache")
_JSON: Final = "application/json"
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Reply(Struct, frozen=True):
    """An answer that is complete."""

    body: bytes
    kind: str = _JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (NO_STORE,)


class Table(Struct, frozen=True):
    """Rows, and what else is said of them."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    more: Mapping[str, Any] = {}
    """Members of the JSON beside the rows; not in the CSV."""

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {"columns": self.columns, "data": self.rows, **self.more}

    def as_csv(self) -> bytes:
        """As CSV, the columns in the first line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([[_cell(row.get(column)) for column in self.columns] for row in self.rows])
        return text.getvalue().encode()


async def send(reply: Reply, to: Send) -> None:
    """Send an answer."""
    headers = [*HEADERS, *reply.headers]
    if reply.body:
        headers.insert(0, (b"content-type", reply.kind.encode()))
    await to({"type": "http.response.start", "status": reply.status, "headers": headers})
    await to({"type": "http.response.body", "body": reply.body})


def json_reply(value: Any, *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> Reply:
    """A value as JSON."""
    return Reply(msgspec.json.encode(value), _JSON, status, (NO_STORE, *headers))


def table_reply(table: Table, *, as_csv: bool, name: str) -> Reply:
    """A table in the form that was asked for.

    Args:
        table: The rows.
        as_csv: As CSV, to be saved as a file.
        name: The file's, without its ending.
    """
    if not as_csv:
        return json_reply(table.shown())
    disposition = (b"content-disposition", f'attachment; filename="mixgate-{name}.csv"'.encode("ascii"))
    return Reply(table.as_csv(), "text/csv; charset=utf-8", 200, (NO_STORE, disposition))


def error_reply(error: MixgateError) -> Reply:
    """What went wrong, and what to do."""
    again = () if error.retry_after_s is None else ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
    said = {"error": {"code": error.code, "message": error.message}}
    return json_reply(said, status=error.status, headers=again)


def _cell(value: Any) -> str:
    """No spreadsheet may take what a client wrote for a formula; our own numbers begin with a digit."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        value = ";".join(map(str, cast("Sequence[object]", value)))
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text
