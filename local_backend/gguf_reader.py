"""Read the header of a GGUF file, trusting nothing in it: every count, length and offset is bounded before it is used.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, number of tensors, number of
key-value pairs, the pairs, the tensor infos, padding, tensor data. Plain reads, never mmap: a file that shrinks
while it is mapped kills the process that looks at it. The `gguf` package needs 1.9 s for a header that this reads
in 20 ms.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from local_backend.file_errors import BadFileError
from local_backend.ggml_types import TENSOR_TYPES, TensorType

HEADER_MAX_BYTES: Final = 64 << 20
READ_CHUNK_BYTES: Final = 1 << 20
PAIRS_MAX: Final = 4096
TENSORS_MAX: Final = 65_536
KEY_MAX_BYTES: Final = 1024
STRING_MAX_BYTES: Final = 4 << 20
ARRAY_ELEMENTS_MAX: Final = 2 << 20
"""Over all arrays of a file together; a vocabulary of 256k with scores, types and merges is under 1.2 million."""
DIMENSIONS_MAX: Final = 4
DIMENSION_MAX: Final = 1 << 40
ALIGNMENT_MAX: Final = 1 << 20
DEFAULT_ALIGNMENT: Final = 32
VERSIONS: Final = (2, 3)
MAGIC: Final = b"GGUF"
GET_IT_AGAIN: Final = "get the file again with `mixgate pull`, or compare its sha256 with the one its publisher names"

Scalar = int | float | bool | str
_STRING, _ARRAY = 8, 9
_SCALARS: Final = {
    number: struct.Struct(f"<{code}")
    for number, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its header describes it."""

    name: str
    shape: tuple[int, ...]
    """Fastest dimension first, as GGUF writes it."""
    type: TensorType
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What one GGUF file (one shard) says about itself."""

    path: Path
    size_bytes: int
    version: int
    values: dict[str, Scalar]
    array_lengths: dict[str, int]
    """Arrays are counted, not kept: nothing here needs the vocabulary itself."""
    tensors: tuple[TensorInfo, ...]


class HeaderNotThereError(BadFileError):
    """The file is shorter than it should be, and the header is not all there."""


def read_header(path: Path, *, full_size_bytes: int | None = None) -> Header:
    """Read one file's header.

    Args:
        path: The file.
        full_size_bytes: How long the file is going to be, where it is still arriving.

    Raises:
        BadFileError: Anything at all that is wrong with it, named.
        HeaderNotThereError: More of the file must arrive first.
    """
    try:
        if not path.is_file():
            raise BadFileError(_why_not_a_file(path))
        size_bytes = full_size_bytes or path.stat().st_size
        with path.open("rb") as file:
            return _Parser(path, file, size_bytes).parse()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadFileError(f"{path} cannot be read: {error}") from error


def _why_not_a_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a model file: name the .gguf file in it"
    if path.exists():
        return f"{path} is not a regular file: a model must be a plain .gguf file on disk"
    if path.is_symlink():
        return f"{path} is a link to a file that does not exist"
    return f"{path} does not exist: get it with `mixgate pull`, or correct `file:` in providers.yaml"


class _Parser:
    """Reads forward through one file, never further than `HEADER_MAX_BYTES`."""

    def __init__(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        self._path = path
        self._file = file
        self._size_bytes = size_bytes
        self._buffer = b""
        self._at = 0
        self._elements = 0

    def parse(self) -> Header:
        version, tensor_count, pair_count = self._preamble()
        values: dict[str, Scalar] = {}
        lengths: dict[str, int] = {}
        for number in range(pair_count):
            key = self._string(KEY_MAX_BYTES, f"key {number + 1} of {pair_count}")
            if key in values or key in lengths:
                raise self._bad(f"the key {key!r} occurs twice")
            kind = self._unpack(_U32)
            if kind == _ARRAY:
                lengths[key] = self._skip_array(key)
            else:
                values[key] = self._scalar(kind, key)
        tensors = self._tensors(tensor_count, self._alignment(values))
        return Header(self._path, self._size_bytes, version, values, lengths, tensors)

    def _preamble(self) -> tuple[int, int, int]:
        start = self._file.read(READ_CHUNK_BYTES)
        self._buffer = start
        if not start:
            raise self._bad("the file is empty")
        if not start.startswith(MAGIC):
            raise self._bad(_name_other_content(start))
        self._at = len(MAGIC)
        version = self._unpack(_U32)
        if version not in VERSIONS:
            raise self._bad(_name_version(version))
        tensor_count, pair_count = self._unpack(_U64), self._unpack(_U64)
        # The bounds come before any loop: a count of 2^60 must not cost a second.
        if tensor_count > TENSORS_MAX:
            raise self._bad(f"it claims {tensor_count:,} tensors, more than any model has")
        if pair_count > PAIRS_MAX:
            raise self._bad(f"it claims {pair_count:,} settings, more than any model has")
        if tensor_count == 0 and pair_count == 0:
            raise self._bad("it holds neither settings nor tensors")
        return version, tensor_count, pair_count

    def _alignment(self, values: dict[str, Scalar]) -> int:
        alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
            raise self._bad(f"its alignment of {alignment!r} is not a power of two")
        return alignment

    def _tensors(self, count: int, alignment: int) -> tuple[TensorInfo, ...]:
        placed = [self._tensor(f"tensor {number + 1} of {count}") for number in range(count)]
        data_at = -(-self._at // alignment) * alignment
        seen: set[str] = set()
        for tensor, offset in placed:
            if tensor.name in seen:
                raise self._bad(f"the tensor {tensor.name!r} occurs twice")
            seen.add(tensor.name)
            if offset % alignment:
                raise self._bad(
                    f"the tensor {tensor.name!r} starts at {offset}, which is not a multiple of {alignment}"
                )
            missing = data_at + offset + tensor.size_bytes - self._size_bytes
            if missing > 0:
                raise self._bad(
                    f"it is truncated: {missing:,} bytes of {tensor.name!r} are past its end "
                    f"({self._size_bytes:,} bytes)"
                )
        return tuple(tensor for tensor, _ in placed)

    def _tensor(self, what: str) -> tuple[TensorInfo, int]:
        name = self._string(KEY_MAX_BYTES, what)
        dimensions = self._unpack(_U32)
        if not 1 <= dimensions <= DIMENSIONS_MAX:
            raise self._bad(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._unpack(_U64) for _ in range(dimensions))
        if not all(0 < length <= DIMENSION_MAX for length in shape) or math.prod(shape) > DIMENSION_MAX:
            raise self._bad(f"the tensor {name!r} has the impossible shape {shape}")
        number = self._unpack(_U32)
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise self._bad(f"the tensor {name!r} has type {number}, which this release does not know")
        if shape[0] % kind.block_length:
            raise self._bad(f"the rows of {name!r} ({shape[0]} numbers) do not divide into {kind.name} blocks")
        size_bytes = math.prod(shape) // kind.block_length * kind.block_bytes
        return TensorInfo(name, shape, kind, size_bytes), self._unpack(_U64)

    def _scalar(self, kind: int, key: str) -> Scalar:
        if kind == _STRING:
            return self._string(STRING_MAX_BYTES, f"the value of {key!r}")
        layout = _SCALARS.get(kind)
        if layout is None:
            raise self._bad(f"the value of {key!r} has type {kind}, which GGUF does not have")
        self._need(layout.size)
        value: int | float | bool = layout.unpack_from(self._buffer, self._at)[0]
        self._at += layout.size
        return value

    def _skip_array(self, key: str) -> int:
        kind, count = self._unpack(_U32), self._unpack(_U64)
        self._elements += count
        if self._elements > ARRAY_ELEMENTS_MAX:
            raise self._bad(f"the list {key!r} claims {count:,} elements, more than any vocabulary has")
        if kind == _STRING:
            self._skip_strings(count, key)
        elif kind in _SCALARS:
            size = _SCALARS[kind].size * count
            self._need(size)
            self._at += size
        else:
            raise self._bad(f"the list {key!r} has elements of type {kind}, which cannot be in a list")
        return count

    def _skip_strings(self, count: int, key: str) -> None:
        # The one loop that a vocabulary of 32k goes through: local names, and a refill only where it is needed.
        buffer, at, unpack = self._buffer, self._at, _U64.unpack_from
        for _ in range(count):
            if at + 8 > len(buffer):
                self._at = at
                self._need(8)
                buffer = self._buffer
            length: int = unpack(buffer, at)[0]
            if length > STRING_MAX_BYTES:
                raise self._bad(f"a text in the list {key!r} claims {length:,} bytes")
            at += 8 + length
        self._at = at
        self._need(0)

    def _string(self, limit: int, what: str) -> str:
        length = self._unpack(_U64)
        if length > limit:
            raise self._bad(f"{what} claims {length:,} bytes of text (at most {limit:,} make sense)")
        self._need(length)
        raw = self._buffer[self._at : self._at + length]
        self._at += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._bad(f"{what} is not UTF-8 text") from None

    def _unpack(self, layout: struct.Struct) -> int:
        self._need(layout.size)
        value: int = layout.unpack_from(self._buffer, self._at)[0]
        self._at += layout.size
        return value

    def _need(self, size: int) -> None:
        """Make sure that `size` more bytes are in the buffer."""
        end = self._at + size
        if end <= len(self._buffer):
            return
        if end > self._size_bytes:
            raise self._bad(f"it is truncated: its header goes on past its end ({self._size_bytes:,} bytes)")
        if end > HEADER_MAX_BYTES:
            raise self._bad(f"its header is over {HEADER_MAX_BYTES >> 20} MiB")
        self._buffer += self._file.read(max(end - len(self._buffer), len(self._buffer)))
        if end > len(self._buffer):
            raise HeaderNotThereError(f"{self._path.name}: it ends in the middle of its header; {GET_IT_AGAIN}")

    def _bad(self, cause: str) -> BadFileError:
        return BadFileError(f"{self._path.name}: {cause}; {GET_IT_AGAIN}")


def _name_other_content(start: bytes) -> str:
    """Say what a file is that does not start like a GGUF."""
    text = start[:256].lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the model: the file behind it was never fetched"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, not a GGUF: an error or sign-in page was saved instead of the model"
    if text.startswith(b"{") or start[8:9] == b"{":
        return "it is JSON or safetensors, not a GGUF"
    if start.startswith((b"ggml", b"ggjt", b"lmgg", b"tjgg", b"fmgg")):
        return "it is in the GGML format that came before GGUF, which llama.cpp no longer reads"
    if all(byte in b"\t\n\r" or byte >= 32 for byte in start[:256]):
        return "it is a text file, not a GGUF"
    return f"it does not start with 'GGUF' but with {start[:4]!r}"


def _name_version(version: int) -> str:
    if version == 1:
        return "it is GGUF version 1, which llama.cpp no longer reads"
    if version & 0xFFFF == 0:
        return "it is a GGUF for machines of the other byte order"
    return f"it is GGUF version {version}, and this release reads {' and '.join(map(str, VERSIONS))}"
