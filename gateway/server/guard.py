"""Reads the head of one request from its raw bytes, and refuses whatever two parsers could read differently.

httptools judges the same bytes after this module (token characters, control characters, chunk framing); this one adds
what it lets pass: several Hosts, two spaces, HTTP/1.0, other protocols' request lines, underscores, sizes. The rules
follow RFC 9112; where that offers a choice between lenient and strict, always strict.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from gateway.server.limits import (
    CONTENT_LENGTH_MAX_DIGITS,
    HEAD_MAX_BYTES,
    HEADER_LINE_MAX_BYTES,
    HEADERS_MAX_COUNT,
    REQUEST_LINE_MAX_BYTES,
)
from gateway.server.refusals import (
    ExpectationError,
    HeadTooLargeError,
    HttpVersionError,
    MalformedRequestError,
    TargetTooLongError,
    TransferCodingError,
)

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
SINGLE_HEADERS = (
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"authorization",
    b"x-api-key",
    b"content-type",
    b"expect",
    b"origin",
)
"""Headers of which a second one is refused: the two of them could be believed by two different readers."""
REQUEST_LINE_CACHE_SIZE = 256
HOST_CACHE_SIZE = 256
HEADER_CACHE_SIZE = 1024
HEADER_CACHE_LINE_MAX_BYTES = 160
UNCACHED_HEADERS = frozenset(
    {b"authorization", b"proxy-authorization", b"x-api-key", b"cookie", b"content-length", b"idempotency-key"}
)
"""Secrets, which must not outlive their request, and what differs from request to request."""
PORT_MAX = 65535
LENGTH: Final = b"content-length"

_known_headers: dict[bytes, tuple[bytes, bytes]] = {}
"""Header lines read before: clients send the same ones again and again, and reading one costs five times as much as
finding it here. Holds nothing but the outcome of a pure function."""
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_TARGET = re.compile(rb"/[!$-;=?-\[\]_a-z|~%]*")
_HOST = re.compile(rb"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


class RequestLine(Struct, frozen=True):
    """The first line of a request, taken apart."""

    method: str
    path: str
    raw_path: bytes
    query: bytes


class Head(Struct):
    """All that the head of one request says, judged."""

    line: RequestLine
    headers: list[tuple[bytes, bytes]]
    """As they came, names in lower case."""
    fields: dict[bytes, bytes]
    """The same by name; the last one wins where a repetition is allowed."""
    host: str
    """The Host without its port, in lower case, brackets kept."""
    content_length: int
    """In bytes; 0 without a body, -1 for a chunked one."""
    keep_alive: bool
    expects_continue: bool
    upgrades: bool
    """Asks for another protocol, which is ignored: RFC 9110 section 7.8 lets a server."""
    standing: object = None
    """What the application has found out about whoever sends it, kept for when the same head comes again."""

    def with_length(self, content_length: int) -> "Head":
        """A copy, of a request that differs in the length of its body and in nothing else."""
        headers, fields = self.headers.copy(), self.fields.copy()
        if content_length != self.content_length:
            fields[LENGTH] = b"%d" % content_length
            headers[[name for name, _ in headers].index(LENGTH)] = (LENGTH, fields[LENGTH])
        return Head(
            self.line,
            headers,
            fields,
            self.host,
            content_length,
            self.keep_alive,
            self.expects_continue,
            self.upgrades,
        )


def read_head(head: bytes) -> Head:
    """Judge the head of a request, from the first byte of the request line to the empty line, both included.

    Raises:
        RefusalError: One of `gateway.server.refusals`, with words for the client.
    """
    lines = head[:-4].split(b"\r\n")
    line_count = len(lines) + 1
    if head.count(b"\n") != line_count or head.count(b"\r") != line_count:
        raise MalformedRequestError("Every line of the request head must end with CR LF; a lone CR or LF is refused.")
    _check_sizes(head, lines)
    line = read_request_line(lines[0])
    known = _known_headers
    headers = [known.get(header) or _read_header(header) for header in lines[1:]]
    fields = dict(headers)
    if len(fields) != len(headers):
        _check_repeated(headers)
    host = fields.get(b"host")
    if host is None:
        raise MalformedRequestError("The Host header is missing.")
    keep_alive, upgrades = _read_connection(headers, fields)
    return Head(
        line=line,
        headers=headers,
        fields=fields,
        host=read_host(host),
        content_length=_read_body_length(fields),
        keep_alive=keep_alive,
        expects_continue=_read_expect(fields),
        upgrades=upgrades,
    )


def check_partial_head(data: bytes | bytearray) -> None:
    """Judge the beginning of a head early, so that a hopeless one is not waited for.

    Raises:
        RefusalError: Too long already, or not a head at all.
    """
    if data[:1] == b"\x16":
        raise MalformedRequestError("This is plain HTTP and the client speaks TLS: use http://, not https://.")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise MalformedRequestError("Every line of the request head must end with CR LF; a lone LF is refused.")
    first = data.find(b"\r\n")
    if (first if first >= 0 else len(data)) > REQUEST_LINE_MAX_BYTES:
        raise TargetTooLongError(f"The request line is over {REQUEST_LINE_MAX_BYTES} bytes.")
    if len(data) > HEAD_MAX_BYTES:
        raise HeadTooLargeError(f"The request head is over {HEAD_MAX_BYTES} bytes.")
    if data.count(b"\r\n") > HEADERS_MAX_COUNT + 2:
        raise HeadTooLargeError(f"The request has over {HEADERS_MAX_COUNT} headers.")


def _check_sizes(head: bytes, lines: list[bytes]) -> None:
    """Refuse a head over any of its bounds."""
    if len(lines) - 1 > HEADERS_MAX_COUNT:
        raise HeadTooLargeError(f"The request has over {HEADERS_MAX_COUNT} headers.")
    if len(head) <= HEADER_LINE_MAX_BYTES:
        return  # No line of it can be too long either.
    if len(lines[0]) > REQUEST_LINE_MAX_BYTES:
        raise TargetTooLongError(f"The request line is over {REQUEST_LINE_MAX_BYTES} bytes.")
    if len(head) > HEAD_MAX_BYTES:
        raise HeadTooLargeError(f"The request head is over {HEAD_MAX_BYTES} bytes.")
    if max(map(len, lines)) > HEADER_LINE_MAX_BYTES:
        raise HeadTooLargeError(f"A header of the request is over {HEADER_LINE_MAX_BYTES} bytes.")


@lru_cache(maxsize=REQUEST_LINE_CACHE_SIZE)
def read_request_line(line: bytes) -> RequestLine:
    """Take a request line apart. Cached, because clients of an API send few different ones.

    Raises:
        RefusalError: Not `METHOD SP /path SP HTTP/1.1` with a method and characters that we know.
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        raise MalformedRequestError("The request line must be a method, a path and HTTP/1.1, with one space between.")
    method, target, version = parts
    if not _VERSION.fullmatch(version):
        raise MalformedRequestError("The request line must end with HTTP/1.1.")
    if version != b"HTTP/1.1":
        raise HttpVersionError(
            f"{version.decode('ascii')} is not served; use HTTP/1.1 (nginx in front: proxy_http_version 1.1)."
        )
    if method not in METHODS:
        raise TransferCodingError("This request method is not served here.")
    if not _TARGET.fullmatch(target):
        raise MalformedRequestError("The request target must start with / and hold printable ASCII characters only.")
    raw_path, _, query = target.partition(b"?")
    path = unquote_to_bytes(raw_path)
    if b"\0" in path:
        raise MalformedRequestError("The path holds a NUL.")
    return RequestLine(method.decode("ascii"), path.decode("utf-8", "replace"), raw_path, query)


@lru_cache(maxsize=HOST_CACHE_SIZE)
def read_host(value: bytes) -> str:
    """The name in a Host header, without its port, in lower case.

    Raises:
        MalformedRequestError: Not a host name or address with an optional port.
    """
    match = _HOST.fullmatch(value)
    if match is None or int(match["port"] or 0) > PORT_MAX:
        raise MalformedRequestError("The Host header must be one host name or address with an optional port.")
    return match["name"].decode("ascii").lower().rstrip(".")


def _read_header(line: bytes) -> tuple[bytes, bytes]:
    """One header: its name in lower case, and its value without the white space around."""
    name, colon, value = line.partition(b":")
    if not colon or not name or name[0] in b" \t":
        raise MalformedRequestError("A header line must be a name, a colon and a value on one line.")
    if b"_" in name:
        raise MalformedRequestError("Header names with an underscore are refused: proxies read them as a hyphen.")
    header = (name.lower(), value.strip(b" \t"))
    if header[0] not in UNCACHED_HEADERS and len(line) <= HEADER_CACHE_LINE_MAX_BYTES:
        if len(_known_headers) >= HEADER_CACHE_SIZE:
            _known_headers.clear()
        _known_headers[line] = header
    return header


def _check_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a second header of a kind that may come once."""
    names = [name for name, _ in headers]
    for name in SINGLE_HEADERS:
        if names.count(name) > 1:
            raise MalformedRequestError(f"The header {name.decode('ascii')} came more than once.")


def _read_body_length(fields: dict[bytes, bytes]) -> int:
    """How the body is framed: its length in bytes, or -1 when it comes in chunks."""
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise MalformedRequestError("Content-Length and Transfer-Encoding exclude each other.")
        if coding.lower() != b"chunked":
            raise TransferCodingError("The only transfer coding served is exactly `chunked`.")
        return -1
    if length is None:
        return 0
    # bytes.isdigit knows ASCII digits only: no sign, no space, no underscore, no other script.
    if not length.isdigit() or len(length) > CONTENT_LENGTH_MAX_DIGITS:
        raise MalformedRequestError("Content-Length must be one decimal number.")
    return int(length)


def _read_expect(fields: dict[bytes, bytes]) -> bool:
    """Whether the client waits for `100 Continue` before it sends the body."""
    expect = fields.get(b"expect")
    if expect is None:
        return False
    if expect.lower() != b"100-continue":
        raise ExpectationError("The only expectation served is 100-continue.")
    return True


def _read_connection(headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]) -> tuple[bool, bool]:
    """Whether the connection may live on, and whether the client asks for another protocol on it."""
    upgrades = b"upgrade" in fields
    if b"connection" not in fields:
        return True, upgrades
    if len(fields) == len(headers) and fields[b"connection"] in (b"keep-alive", b"Keep-Alive"):
        return True, upgrades
    tokens = [token.strip() for name, value in headers if name == b"connection" for token in value.lower().split(b",")]
    return b"close" not in tokens, upgrades or b"upgrade" in tokens


def without_upgrade(head: bytes) -> bytes:
    """The same head without the headers that ask for another protocol, for a parser that would obey them."""
    lines = head[:-4].split(b"\r\n")
    hop = (b"upgrade:", b"connection:", b"http2-settings:")
    kept = [line for line in lines if not line.lower().startswith(hop)]
    return b"\r\n".join(kept) + b"\r\n\r\n"


def is_loopback(address: str) -> bool:
    """Whether an IP address, as a socket reports it, is this machine."""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
