"""The static side of decisions, as it is stored: a Table without what no decision looks at, and its digest."""

import hashlib
from typing import Any, Final, final

import msgspec
from msgspec.structs import replace

from gateway.explain.errors import UnreadableRecordError
from gateway.routing.table import Row, Stage, Table
from gateway.state.blocks import Static
from providers.quirks import Quirks

DIGEST_CHARS: Final = 32
"""128 bits of a SHA-256: nobody has a reason to look for two Tables with one digest."""
TABLES_MAX: Final = 256
"""Tables whose digest is remembered."""

# Sets come sorted, so that the same Table has the same digest in every process.
_encoder: Final = msgspec.json.Encoder(order="deterministic", enc_hook=str)
_decoder: Final = msgspec.json.Decoder(Table)


@final
class Known:
    """A Table in use, and what is stored of it."""

    def __init__(self, table: Table, static: Static) -> None:
        self.table = table
        self.static = static
        self.ids: tuple[str, ...] = tuple(row.id for row in table.merged.rows)
        self.excluded = len(table.excluded)
        self.told_unix_s = 0.0
        """When a record was packed last with all that it refers to."""


class Statics:
    """Digests of the Tables in use. For the thread that writes records; others may ask what is known."""

    def __init__(self) -> None:
        # By identity, and the Table is held so that its id stays its own.
        self._known: dict[int, Known] = {}

    def known(self, table: Table) -> Known | None:
        """What is stored of a Table, where that was asked before."""
        return self._known.get(id(table))

    def forget(self) -> None:
        """Know nothing any more."""
        self._known.clear()

    def of(self, table: Table) -> Known:
        """What is stored of a Table."""
        known = self._known.get(id(table))
        if known is None:
            if len(self._known) >= TABLES_MAX:
                self._known.clear()
            known = self._known[id(table)] = Known(table, make_static(table))
        return known


def make_static(table: Table) -> Static:
    """What is stored of a Table: without URLs, quirks and facts for people, which no decision looks at."""
    bare = replace(table, stages=tuple(map(_bare_stage, table.stages)), merged=_bare_stage(table.merged))
    data = _encoder.encode(bare)
    return Static(hashlib.sha256(data).hexdigest()[:DIGEST_CHARS], data)


def read_static(data: bytes) -> Table:
    """The Table that was stored.

    Raises:
        UnreadableRecordError: Another version stored it.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        message = f"the static side of the decision cannot be read: {error}; another version may have written it"
        raise UnreadableRecordError(message) from error


def _bare_stage(stage: Stage) -> Stage:
    return replace(stage, rows=tuple(map(_bare_row, stage.rows)))


def _bare_row(row: Row) -> Row:
    nothing: dict[str, Any] = {"base_url": "", "details": {}, "description": None, "quirks": Quirks()}
    return replace(row, endpoint=replace(row.endpoint, **nothing))
