"""Chat requests as hostile clients send them: a corpus by name, and a generator of damaged ones."""

import json

from gateway.server.openai_request import COSTLY_NUMBERS_MAX, DEPTH_MAX, STRUCTURE_MAX
from providers.messages import CHOICES_MAX, MESSAGES_MAX, STOPS_MAX, TOOLS_MAX

TURN = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RICH = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this? \u20ac \U0001f600"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 100,
    "temperature": 0.5,
    "top_p": 1,
    "stop": ["a", "b"],
    "seed": 7,
    "logit_bias": {"50256": -100},
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "metadata": {"who": "me"},
    "user": "u",
}


def encoded(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def ask(**members):
    return {"model": "m", "messages": [TURN], **members}


def nest(depth, opening="[", closing="]"):
    return f"{opening * depth}{closing * depth}".encode()


def within(member):
    """A request with these raw bytes as one member's value."""
    return b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":' + member + b"}"


WRONG = {
    "messages": (ask() | {"messages": "hi"}, "messages"),
    "messages null": (ask() | {"messages": None}, "messages"),
    "no message": (ask() | {"messages": []}, "messages"),
    "message": (ask() | {"messages": [1]}, "messages[0]"),
    "message null": (ask() | {"messages": [TURN, None]}, "messages[1]"),
    "role": (ask() | {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "no role": (ask() | {"messages": [{"content": "x"}]}, "messages[0].role"),
    "content": (ask() | {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "part": (ask() | {"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    "tool call": (ask() | {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
    "no messages": ({"model": "m"}, "messages"),
    "model": (ask(model=5), "model"),
    "long model": (ask(model="m" * 513), "model"),
    "temperature": (ask(temperature="hot"), "temperature"),
    "temperature over": (ask(temperature=2.5), "temperature"),
    "top_p": (ask(top_p=-0.1), "top_p"),
    "n": (ask(n=CHOICES_MAX + 1), "n"),
    "n zero": (ask(n=0), "n"),
    "n fraction": (ask(n=1.5), "n"),
    "n text": (ask(n="1"), "n"),
    "stop": (ask(stop=["x"] * (STOPS_MAX + 1)), "stop"),
    "stop element": (ask(stop=["x", 1]), "stop[1]"),
    "stream": (ask(stream="yes"), "stream"),
    "stream_options": (ask(stream_options=[]), "stream_options"),
    "seed": (ask(seed=2**63), "seed"),
    "max_tokens": (ask(max_tokens=-1), "max_tokens"),
    "max_completion_tokens": (ask(max_completion_tokens="10"), "max_completion_tokens"),
    "logprobs": (ask(logprobs=3), "logprobs"),
    "top_logprobs": (ask(top_logprobs=21), "top_logprobs"),
    "logit_bias": (ask(logit_bias={"1": "x"}), "logit_bias"),
    "tools": (ask(tools={}), "tools"),
    "too many tools": (ask(tools=[TOOL] * (TOOLS_MAX + 1)), "tools"),
    "tool": (ask(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    "parameters": (ask(tools=[{"function": {"name": "f", "parameters": []}}]), "tools[0].function.parameters"),
    "too many messages": (ask() | {"messages": [TURN] * (MESSAGES_MAX + 1)}, "messages"),
    "response_format": (ask(response_format="json"), "response_format"),
    "no response_format type": (ask(response_format={}), "response_format.type"),
    "models": (ask(models="m"), "models"),
    "metadata": (ask(metadata=[]), "metadata"),
}


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "NUL": b"\0",
    "text": b"hello",
    "single quotes": b"{'model': 'm'}",
    "trailing comma": b'{"model":"m",}',
    "comment": b'{"model":"m"} // hi',
    "two values": b'{"model":"m"}{"model":"m"}',
    "NaN": within(b"NaN"),
    "temperature NaN": b'{"temperature":NaN,"messages":[{"role":"user","content":"hi"}]}',
    "Infinity": within(b"Infinity"),
    "-Infinity": within(b"[-Infinity]"),
    "1e999": within(b"1e999"),
    "-1e999": within(b"[[-1e999]]"),
    "temperature 1e999": b'{"temperature":1e999,"messages":[{"role":"user","content":"hi"}]}',
    "5,000 digits": within(b"9" * 5000),
    "seed of 5,000 digits": b'{"seed":' + b"9" * 5000 + b',"messages":[{"role":"user","content":"hi"}]}',
    "leading zero": within(b"01"),
    "hexadecimal": within(b"0x1"),
    "plus": within(b"+1"),
    "lone high surrogate": b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    "lone low surrogate": b'{"messages":[{"role":"user","content":"\\udc00"}]}',
    "surrogates the wrong way round": within(b'"\\ude00\\ud83d"'),
    "surrogate in a key": b'{"\\ud800":1,"messages":[{"role":"user","content":"x"}]}',
    "surrogate as raw UTF-8": within(b'"\xed\xa0\x80"'),
    "invalid UTF-8": within(b'"\xff"'),
    "overlong UTF-8": within(b'"\xc0\xaf"'),
    "UTF-8 cut short": within(b'"\xe2\x82"'),
    "invalid UTF-8 in a key": b'{"\xff":1}',
    "invalid UTF-8 in text": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "raw line break in a string": within(b'"a\nb"'),
    "byte order mark": b"\xef\xbb\xbf" + encoded(ask()),
    "UTF-16": json.dumps(ask()).encode("utf-16"),
    "UTF-16 without a mark": json.dumps(ask()).encode("utf-16-le"),
    "UTF-32": json.dumps(ask()).encode("utf-32"),
    "broken after an unknown member": b'{"zz":1, bad',
    "depth 65": within(nest(DEPTH_MAX)),
    "depth 500": within(nest(500)),
    "depth 1,000": within(nest(1_000)),
    "depth 100,000": within(nest(100_000)),
    "depth 100,000 of objects": within(nest(100_000, '{"a":', "}").replace(b":}", b":1}", 1)),
    "depth 1,000,000 unclosed": b"[" * 1_000_000,
    "known member of depth 1,000": b'{"messages":[{"role":"user","content":"hi"}],"metadata":{"a":'
    + nest(1_000)
    + b"}}",
    "array": b"[]",
    "string": b'"hi"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
}


PLAIN = b'{"messages":[{"role":"user","content":"%b"}]}'
TOO_MUCH = {
    "12 MB of tiny keys": b'{"messages":[],' + b",".join(b'"%d":1' % n for n in range(1_100_000)) + b"}",
    "20 MB of brackets": b"[" * 20_000_000,
    "20 MB of braces": b"{" * 20_000_000,
    "empty arrays": within(b"[" + b",".join([b"[]"] * (STRUCTURE_MAX + 1)) + b"]"),
    "empty strings": within(b"[" + b",".join([b'""'] * (STRUCTURE_MAX + 1)) + b"]"),
    "slow floats": within(b"[" + b",".join([b"8.5e-320"] * (COSTLY_NUMBERS_MAX + 1)) + b"]"),
    "long integers": within(b"[" + b",".join([b"1" * 100] * (COSTLY_NUMBERS_MAX + 1)) + b"]"),
    "parts": encoded(ask() | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 40}] * 2048}),
}
MUCH_TEXT = {
    "backslashes": b"\\\\" * 9_000_000,
    "backslashes and commas": b"," * 300_000 + b"\\\\" * 5_000_000,
    "quotes and commas": b"," * 300_000 + b'\\"' * 5_000_000,
    "code": b'if (a[\\"x\\"] == {1,2,3}) { b(1e5, 2e-7); }\\n' * 100_000,
    "digits of a number": b"12345678901234567890,1e5," * 100_000,
    "line breaks": b"\\n" * 5_000_000,
    "UTF-8": "\u00e9,".encode() * 3_000_000,
}


HOSTILE = (
    *(
        b'{}[]",:\\ \n\0',
        b"null",
        b"true",
        b"1e999",
        b"-0",
        b"NaN",
        b"\xff",
        b"\xef\xbb\xbf",
        b'"\\ud800"',
        b'"\\u0000"',
    ),
    *(b'"extra":', b'"messages":', b'"model":', b'"role":"user",', b'"n":99,', b'"zz":[],', b"9" * 400, b"[" * 200),
)
SEEDS = (encoded(RICH), encoded(ask()), encoded(ask(zz={"a": [1, {"b": None}]}, provider={"order": ["a"]})))


def mutate(rng, body):
    """One to four small damages."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(body) + 1)
        end = min(len(body), start + rng.choice((0, 1, 1, 2, 5, 30)))
        kind = rng.random()
        if kind < 0.3:
            new = bytes([rng.randrange(256)])
        elif kind < 0.6:
            new = rng.choice(HOSTILE)
        elif kind < 0.8:
            place = rng.randrange(len(body) + 1)
            new = body[place : place + rng.randrange(40)]
        else:
            new = b""
        body = body[:start] + new + body[end:]
    return body


def swap_values(rng, value):
    """Valid JSON with some value replaced by one of another type."""
    if rng.random() < 0.05:
        return rng.choice((None, True, 0, -1, 1.5, 2**70, "", "x", [], {}, [None], {"": None}, [[1]]))
    if isinstance(value, dict):
        return {name: swap_values(rng, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [swap_values(rng, inner) for inner in value]
    return value


def hostile_body(rng):
    kind = rng.random()
    if kind < 0.6:
        return mutate(rng, rng.choice(SEEDS))
    if kind < 0.9:
        return encoded(swap_values(rng, RICH))
    return rng.randbytes(rng.randrange(200))
