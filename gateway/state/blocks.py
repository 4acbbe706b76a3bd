"""How records lie in a block: one line each, `id SPACE data`, all compressed together.

Alone a record of 600 bytes would hardly shrink; beside others like it, it takes a tenth of that.
"""

import zlib
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.state.errors import DamagedStoreError

RECORDS_MAX: Final = 256
"""Records in one block."""
RECORD_MAX_BYTES: Final = 1024 * 1024
"""One record. A larger one is dropped and counted."""
BLOCK_FULL_BYTES: Final = 4 * 1024 * 1024
"""Records that together have this size make a block, however few they are."""
BLOCK_MAX_BYTES: Final = 2 * BLOCK_FULL_BYTES
"""A block when it is unpacked: nothing larger is ever packed."""
LEVEL: Final = 1
"""Of zlib. Higher levels take several times as long for a few per cent."""


class Static(Struct, frozen=True, gc=False):
    """What many records refer to and the store keeps once."""

    digest: str
    data: bytes


class Packed(Struct, frozen=True, gc=False):
    """A record as it is stored."""

    id: str
    """Without spaces; later ones sort behind earlier ones."""
    data: bytes
    """Without line breaks, as JSON is."""
    static: Static | None = None


class Block(Struct, frozen=True, gc=False):
    """Records that were compressed together."""

    first_id: str
    last_id: str
    min_id: str
    max_id: str
    count: int
    data: bytes


def pack(records: Sequence[Packed]) -> Block:
    """One block of at least one record."""
    lines = b"\n".join([b"%b %b" % (record.id.encode(), record.data) for record in records])
    ids = [record.id for record in records]
    return Block(ids[0], ids[-1], min(ids), max(ids), len(ids), zlib.compress(lines, LEVEL))


def in_blocks(records: Sequence[Packed]) -> list[Sequence[Packed]]:
    """As many at a time as a block has at most."""
    return [records[at : at + RECORDS_MAX] for at in range(0, len(records), RECORDS_MAX)]


def lean(records: Sequence[Packed]) -> list[Packed]:
    """The same, with what they refer to once each, as it is larger than all of them: for another process."""
    if all(record.static is None for record in records):
        return list(records)
    told: set[str] = set()
    made: list[Packed] = []
    for record in records:
        static = record.static
        if static is None or static.digest not in told:
            made.append(record)
        else:
            made.append(Packed(record.id, record.data))
        if static is not None:
            told.add(static.digest)
    return made


def find(block: bytes, record_id: str) -> bytes | None:
    """The data of one record, or None where the block does not have it.

    Raises:
        DamagedStoreError: It is no block of ours.
    """
    lines = b"\n" + _unpack(block)
    start = lines.find(b"\n%b " % record_id.encode())
    if start < 0:
        return None
    end = lines.find(b"\n", start + 1)
    return lines[start + len(record_id.encode()) + 2 : None if end < 0 else end]


def records(block: bytes) -> list[tuple[str, bytes]]:
    """Every record of a block with its id, in the order in which they were made.

    Raises:
        DamagedStoreError: It is no block of ours.
    """
    pairs = (line.partition(b" ") for line in _unpack(block).split(b"\n"))
    return [(name.decode(), data) for name, _, data in pairs]


def _unpack(block: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        lines = decompressor.decompress(block, BLOCK_MAX_BYTES)
    except zlib.error as error:
        raise DamagedStoreError(f"a block of records cannot be unpacked ({error})") from error
    if not decompressor.eof:
        raise DamagedStoreError("a block of records is cut short, or larger than any that is written")
    return lines
