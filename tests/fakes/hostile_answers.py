"""Answers of providers that mean harm, by name: parts to be sent, or bodies of JSON and its like."""

from tests.fakes.hostile import (
    EVENTS,
    JSON,
    SCRIPT,
    Forever,
    brotli_bomb,
    delta,
    gzip_bomb,
    said,
    small_gzip,
    whole,
)
from tests.fakes.provider import chunk

MIB = 1 << 20
CHUNKED = b"transfer-encoding: chunked\r\n"
OPEN_TEXT = b'{"choices":[{"index":0,"message":{"content":"'
FINISHED = (delta("all"), chunk({}, "stop"))

ENDLESS = {
    "line": (EVENTS + b"\r\n", Forever(b"a")),
    "event": (EVENTS + b"\r\ndata: ", Forever(b"a")),
    "event of lines": (EVENTS + b"\r\n", Forever(b"data: a\n")),
    "comments": (EVENTS + b"\r\n", Forever(b": still here\n\n")),
    "comment lines": (EVENTS + b"\r\n", Forever(b": still here\n")),
    "empty lines": (EVENTS + b"\r\n", Forever(b"\r\n")),
    "junk events": (EVENTS + b"\r\n", Forever(b"event: x\nid: 1\n\n")),
    "usage": (EVENTS + b"\r\n", Forever(b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n')),
    "body": (JSON + b"content-length: %d\r\n\r\n" % (1 << 30) + OPEN_TEXT, Forever(b"a")),
    "body without a length": (JSON + b"\r\n" + OPEN_TEXT, Forever(b"a")),
    "chunked body": (JSON + CHUNKED + b"\r\n", Forever(b"1000\r\n" + b"a" * 4096 + b"\r\n")),
    "body of one-byte chunks": (JSON + CHUNKED + b"\r\n", Forever(b"1\r\na\r\n")),
    "header": (b"HTTP/1.1 200 OK\r\nx: ", Forever(b"a")),
    "header name": (b"HTTP/1.1 200 OK\r\n", Forever(b"a")),
    "headers": (b"HTTP/1.1 200 OK\r\n", *(b"x-%d: y\r\n" % n for n in range(1000)), Forever(b"x: y\r\n")),
    "status line": (b"HTTP/1.1 200 ", Forever(b"OK ")),
    "interim answers": (Forever(b"HTTP/1.1 100 Continue\r\n\r\n"),),
    "chunk extension": (JSON + CHUNKED + b"\r\n1;x=", Forever(b"a")),
    "trailer": (JSON + CHUNKED + b"\r\n0\r\nx: ", Forever(b"a")),
    "trailers": (JSON + CHUNKED + b"\r\n0\r\n", Forever(b"x: y\r\n")),
    "error body": (b"HTTP/1.1 500 Oh\r\n\r\n<html>", Forever(b"a")),
    "gzip": (JSON + b"content-encoding: gzip\r\n\r\n", Forever(small_gzip(b"a" * 10_000_000))),
    "choices": (EVENTS + b"\r\n", *(chunk({"content": "a"}, index=n) for n in range(1000)), Forever(delta("a"))),
}
UNBOUNDED_BY_LIBRARY = ("interim answers", "trailer", "body of one-byte chunks")
"""What aiohttp itself reads for as long as it comes, a piece at a time: only the time limits end it."""
NOT_HTTP = {
    "nothing": (),
    "text": (b"hello\r\n",),
    "binary": (bytes(range(256)) * 100,),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n",),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),),
    "a request": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",),
    "an upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nPRI * HTTP/2.0",),
    "NUL in a header": (whole(said(), b"x: a\0b"),),
    "bare CR in a header": (whole(said(), b"x: a\rset-cookie: a=b"),),
    "folded header": (whole(said(), b"x: a", b" b\0"),),
    "space before the colon": (whole(said(), b"x : a"),),
    "gzip bomb": (whole(gzip_bomb(64 * MIB), b"content-encoding: gzip"),),
    "gzip bomb unannounced": (whole(gzip_bomb(64 * MIB)),),
    "gzip as transfer coding": (JSON + b"transfer-encoding: gzip\r\n\r\n" + small_gzip(said()),),
    "brotli": (whole(brotli_bomb(), b"content-encoding: br"),),
    "coding of an unknown kind": (whole(said(), b"content-encoding: gzip, br, x"),),
    "chunk size of letters": (JSON + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",),
    "chunk size of 2^64": (JSON + CHUNKED + b"\r\n10000000000000000\r\n{}",),
    "negative chunk size": (JSON + CHUNKED + b"\r\n-1\r\n{}\r\n0\r\n\r\n",),
    "chunk without its end": (JSON + CHUNKED + b"\r\n2\r\n{}xx0\r\n\r\n",),
    "chunks cut short": (JSON + CHUNKED + b"\r\nff\r\n{}",),
    "length of letters": (JSON + b"content-length: many\r\n\r\n" + said(),),
    "negative length": (JSON + b"content-length: -1\r\n\r\n" + said(),),
    "length of 2^70": (JSON + b"content-length: 1180591620717411303424\r\n\r\n" + said(),),
    "two lengths": (JSON + b"content-length: 2\r\ncontent-length: 9\r\n\r\n" + said(),),
    "length and chunks": (JSON + b"content-length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + said(),),
    "length too long": (JSON + b"content-length: 9999\r\n\r\n" + said(),),
    "length too short": (JSON + b"content-length: 20\r\n\r\n" + said(),),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n",),
}
NOT_CHAT = {
    "a web page": (b"<!doctype html><html>" + SCRIPT.encode() + b"</html>",),
    "an error": (b'{"error": {"message": "%b", "code": 502}}' % SCRIPT.encode(),),
    "an error as text": (b'{"error": "%b"}' % SCRIPT.encode(),),
    "no choices": (b'{"choices": []}',),
    "nothing": (b"",),
    "null": (b"null",),
    "deep": (b'{"choices":' + b"[" * 10 * MIB,),
    "deep and closed": (b'{"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}",),
    "deep objects": (b'{"choices":[{"message":{"annotations":[' + b'{"a":' * 500_000,),
    "many empty lists": (b'{"choices":[{"message":{"content":"x","annotations":[' + b"[]," * 10 * MIB + b"[]]}}]}",),
    "many choices": (b'{"choices":[' + b'{"message":{}},' * MIB + b"{}]}",),
    "many members in 2 MB": (b'{"choices":[{"message":{"content":"x","annotations":[' + b"{}," * 600_000 + b"{}]}}]}",),
    "many choices in 2 MB": (b'{"choices":[' + b"{}," * 600_000 + b"{}]}",),
    "a choice numbered -1": (said().replace(b'"index": 0', b'"index": -1'),),
    "a choice numbered 10^18": (said().replace(b'"index": 0', b'"index": 1000000000000000000'),),
    "invalid UTF-8": (said().replace(b"fine", b"\xff\xfe"),),
    "a lone surrogate": (said().replace(b"fine", b"\\ud800"),),
    "NaN": (b'{"choices": NaN}',),
    "a number of 100,000 digits": (b'{"choices": ' + b"9" * 100_000 + b"}",),
}
FIGURES = (
    *(-1, -(10**30), 10**30, 1.5, 1e308, True, None, "12", "NaN", "sNaN", "Infinity", "-Infinity", SCRIPT, [], {}),
    *("1e999999999", "-0", "1e-999999999", {"a": 1}, [[]], "9" * 10_000, 2**63, 2**64),
)
