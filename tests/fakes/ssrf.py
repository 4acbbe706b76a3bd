"""Places that a gateway must never go to, in every spelling, and where a client could try to write them."""

import copy
import ipaddress
from collections.abc import Iterator
from typing import Any

from tests.fakes.bodies import RICH

SCHEMES = (
    "http",
    "https",
    "HTTP",
    "ftp",
    "gopher",
    "file",
    "unix",
    "dict",
    "ldap",
    "ws",
    "jar:http",
    "http+unix",
    "data",
)
MEMBERS = (
    *("api_base", "base_url", "baseUrl", "api_url", "url", "endpoint", "host", "proxy", "http_proxy", "upstream"),
    *("callback_url", "webhook", "redirect", "azure_endpoint", "custom_llm_provider", "litellm_params", "x-target"),
    *("model_list", "extra_headers", "extra_body", "default_headers", "organization", "region", "aws_region_name"),
    *("outputUrl", "file_url", "document_url", "image", "api_key", "headers", "fallbacks", "mock_response"),
)
HEADERS = (
    *("x-forwarded-host", "x-forwarded-server", "x-host", "x-original-url", "x-rewrite-url", "x-http-host-override"),
    *("forwarded", "x-base-url", "x-api-base", "openai-base-url", "api-base", "x-upstream", "x-proxy-host", "referer"),
    *("x-portkey-custom-host", "helicone-target-url", "x-litellm-api-base", "x-target-url", "location", "origin"),
    *("http-referer", "x-title", "true-client-ip", "client-ip", "x-real-ip", "via", "proxy", "proxy-connection"),
    *("openai-organization", "openai-project", "x-stainless-base-url", "destination", "x-forwarded-prefix", "upgrade"),
)


def hosts(port: int) -> list[str]:
    """The loopback and other inner addresses, as parsers have been fooled with."""
    loopback = ipaddress.ip_address("127.0.0.1")
    number = int(loopback)
    spelled = [
        *("127.0.0.1", "localhost", "LOCALHOST", "127.1", "127.0.1", "0", "0.0.0.0", "127.127.127.127"),  # noqa: S104
        *(str(number), hex(number), oct(number).replace("o", ""), "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "017700000001"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]"),
        *("[2002:7f00:1::]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[fe80::1]", "[fd00:ec2::254]"),
        *("100.64.0.1", "169.254.169.254", "192.168.0.1", "10.0.0.1", "172.17.0.1", "metadata.google.internal"),
        *(
            "127.0.0.1.nip.io",
            "localtest.me",
            "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
            "127\u30020\u30020\u30021",
        ),
    ]
    return [f"{host}:{port}" for host in spelled]


def payloads(port: int, socket_path: str) -> list[str]:
    """At least 300 different texts, each of which leads to a canary if anybody follows it."""
    here = f"127.0.0.1:{port}"
    found = [f"http://{host}/v1" for host in hosts(port)]
    found += [f"//{host}" for host in hosts(port)]
    found += [f"http://configured.example@{host}/" for host in hosts(port)]
    found += [f"http://{host}#@configured.example/" for host in hosts(port)]
    found += [f"http://configured.example\\@{host}/" for host in hosts(port)]
    found += [f"http://{host}?@configured.example/" for host in hosts(port)]
    found += [f"https://{host}/latest/meta-data/" for host in hosts(port)[:30]]
    found += [f"{scheme}://{here}/x" for scheme in SCHEMES]
    found += [f"gopher://{here}/_GET%20/%0d%0a", f"http://{here}/%0d%0aHost:%20x", f"http://{here}\r\nHost: x"]
    found += [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "/etc/passwd",
        "..%2f..%2fetc/passwd",
        "\\\\127.0.0.1\\x",
    ]
    found += [f"unix:{socket_path}", f"unix://{socket_path}:/v1", f"http+unix://{socket_path.replace('/', '%2F')}/v1"]
    found += [f"http://{here}/{tail}" for tail in ("a/../..", ";x", "%2e%2e", "\0", "{{7*7}}", "${jndi:ldap://x}")]
    found += [f" http://{here}", f"\thttp://{here}", f"http:/{here}", f"http:\\\\{here}", f"hTtP:{here}", here]
    found += [
        f"openai/m@{here}",
        f"http://{here}/m",
        f"bedrock/{here}",
        f"local:{here}",
        f"p0/up?base_url=http://{here}",
    ]
    found += [f"http://user:{n}@{here}/redirect?to=http%3A%2F%2F{here}" for n in range(40)]
    return list(dict.fromkeys(found))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every text in a JSON value."""
    if isinstance(value, str):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))


FULL_BODY: dict[str, Any] = {
    **RICH,
    "stream": False,
    "stream_options": None,
    "tool_choice": "auto",
    "user": "u",
    "models": ["m"],
    "provider": {"order": ["p0"], "only": ["x"], "data_collection": "deny"},
    "plugins": [{"id": "web", "engine": "x", "pdf": {"engine": "y"}}],
    "transforms": ["middle-out"],
    "route": "fallback",
    "session_id": "s",
    "trace": {"id": "t"},
    "reasoning": {"effort": "low"},
    "reasoning_effort": "low",
    "service_tier": "auto",
    "modalities": ["text"],
    "audio": {"voice": "x", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {"search_context_size": "low", "user_location": {"type": "approximate"}},
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "cache_control": {"type": "ephemeral"},
    "debug": {"echo": "x"},
    "usage": {"include": "x"},
}


def with_text(path: tuple[Any, ...], text: str) -> dict[str, Any]:
    """The full body with one text replaced."""
    body = copy.deepcopy(FULL_BODY)
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = text
    return body


def with_members(text: str) -> dict[str, Any]:
    """A small body with every tempting member, at the top, in a message, a part, a tool, and in `extra_body`."""
    tempting = dict.fromkeys(MEMBERS, text)
    part = {"type": "text", "text": text, **tempting}
    image = {"type": "image_url", "image_url": {"url": text, **tempting}}
    function = {"name": "f", "description": text, "parameters": {"type": "object", "$id": text, "title": text}}
    return {
        "model": "m",
        "messages": [
            {"role": "user", "content": [part], **tempting},
            {"role": "user", "content": [image, {"type": "file", "file": {"file_data": text, "filename": text}}]},
        ],
        "tools": [{"type": "function", "function": function, **tempting}],
        "metadata": tempting,
        **tempting,
        "extra_body": tempting,
        "provider": tempting,
    }


def with_schema(text: str) -> dict[str, Any]:
    """A body whose schema refers to the text, everywhere that a schema may."""
    schema = {
        "$schema": text,
        "$id": text,
        "type": "object",
        "properties": {"a": {"$ref": text}, "b": {"$dynamicRef": text}},
    }
    return {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }
