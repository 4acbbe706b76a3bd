"""Every way to break providers.yaml that we could think of: the line, what is wrong, and the remedy."""
# ruff: noqa: E501  # a case reads best on one line

import os
import re
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.errors import ConfigError, ConfigProblem

GOOD = """\
providers:
  mine:
    dialect: openai
    base_url: http://127.0.0.1:8000/v1
    models:
      big: {context_tokens: 1000}
"""


def provider(extra: str = "", base_url: str = "http://127.0.0.1:8000/v1", row: str = "{}") -> str:
    return (
        f"providers:\n  mine:\n    dialect: openai\n    base_url: {base_url}\n    models: {{big: {row}}}\n    {extra}\n"
    )


def routes(text: str) -> str:
    return GOOD + "routes:\n" + text


LOCAL = "providers:\n  local:\n    dialect: local\n    models:\n      tiny: "

# name: the file, the line that is blamed, what the message says, what the fix says
CASES: dict[str, tuple[str, int, str, str]] = {
    "unknown top key": ("provider: {}\nproviders: {}\n", 1, 'unknown key "provider"', '"providers"'),
    "no providers": ("gateway: {}\n", 1, 'needs "providers"', "add `providers:`"),
    "empty file": ("", 1, 'needs "providers"', "add"),
    "a list for a file": ("- a\n- b\n", 1, "a list, not a mapping", "key: value"),
    "providers is a list": ("providers: [a]\n", 1, "providers is a list", "key: value"),
    "provider is text": ("providers:\n  a: openai\n", 2, "providers.a", "key: value"),
    "provider without dialect": ("providers:\n  a: {}\n", 2, 'needs "dialect"', "add `dialect:`"),
    "unknown provider key": (provider("keyy: 1"), 6, 'unknown key "keyy" in providers.mine', "known here: dialect"),
    "misspelt api_key": (provider("apikey: env:A"), 6, 'did you mean "api_key"?', 'write "api_key"'),
    "misspelt models": (provider("modles: {}"), 6, 'did you mean "models"?', '"models"'),
    "unknown dialect": ("providers:\n  a:\n    dialect: opnai\n", 3, 'unknown dialect "opnai"; known: openai', "openai"),
    "dialect that comes later": ("providers:\n  a: {dialect: bedrock}\n", 2, 'unknown dialect "bedrock"', "openai"),
    "dialect is a number": ("providers:\n  a: {dialect: 7}\n", 2, "is 7, not text", "write text"),
    "openai without base_url": ("providers:\n  a: {dialect: openai}\n", 2, 'needs "base_url"', "/chat/completions"),
    "base_url ftp": (provider(base_url="ftp://h/v1"), 4, "not an http(s) URL", "http://"),
    "base_url without scheme": (provider(base_url="localhost:8000/v1"), 4, "not an http(s) URL", "http://"),
    "base_url file": (provider(base_url="file:///etc/passwd"), 4, "not an http(s) URL", "http://"),
    "base_url without host": (provider(base_url="http:///v1"), 4, "not a sound URL", "scheme, host"),
    "base_url bad port": (provider(base_url="http://h:99999/v1"), 4, "not a sound URL", "port"),
    "base_url with a space": (provider(base_url='"http://h/v 1"'), 4, "not a sound URL", "scheme"),
    "base_url with CRLF": (provider(base_url='"http://h/v1\\r\\nX: y"'), 4, "not a sound URL", "scheme"),
    "base_url with query": (provider(base_url="http://h/v1?a=b"), 4, "more than host and path", "leave the rest off"),
    "base_url too long": (provider(base_url="http://h/v1/chat/completions"), 4, "ends in /chat/completions", "leave that off"),
    "password in base_url": (provider(base_url="https://me:hunter2@h/v1"), 4, "key or password is written out", "revoke"),
    "key in base_url query": (provider(base_url="https://h/v1?api_key=abc"), 4, "key or password", "env:NAME"),
    "key pasted into api_key": (provider("api_key: sk-or-v1-0123456789abcdef"), 6, "looks like a key", "env:NAME"),
    "unknown vendor's key": (provider("api_key: aB3dE5fG7hI9jK1lM3nO5p"), 6, "a key is pasted in", "revoke"),
    "bare word as api_key": (provider("api_key: hello"), 6, "not a reference to a key", "env:NAME"),
    "number as api_key": (provider("api_key: 12345678901234567890"), 6, "not text", "text"),
    "bearer header as api_key": (provider('api_key: "Bearer abcdefgh12345678"'), 6, "looks like a key", "revoke"),
    "env without name": (provider('api_key: "env:"'), 6, "malformed", "env:NAME"),
    "env with a dash": (provider("api_key: env:MY-KEY"), 6, "malformed", "env:NAME"),
    "env with a key": (provider("api_key: env:sk-or-v1-0123456789abcdef"), 6, "looks like a key", "revoke"),
    "shell variable": (provider("api_key: $OPENAI_API_KEY"), 6, "malformed", "env:NAME"),
    "relative key file": (provider("api_key: file:key.txt"), 6, "malformed", "file:/absolute/path"),
    "key in a description": (provider(row="{description: use gsk_0123456789abcdefXYZ}"), 5, "looks like a key", "revoke"),
    "key as a model name": (
        "providers:\n  m:\n    dialect: openai\n    base_url: http://h/v1\n    models:\n      sk-abcdefgh12345678: {}\n",
        6,
        "looks like a key",
        "revoke",
    ),
    "private key": (provider("api_key: '-----BEGIN RSA PRIVATE KEY-----'"), 6, "looks like a key", "revoke"),
    "pasted client key": (GOOD + "gateway:\n  client_keys:\n    - sk-abcdefgh12345678\n", 9, "looks like a key", "revoke"),
    "misspelt quirk": (provider("quirks: {stream_usge: false}"), 6, 'unknown quirk "stream_usge"', '"stream_usage"'),
    "unknown quirk": (provider("quirks: {zzz: 1}"), 6, 'unknown quirk "zzz"', "known here: unknown_fields"),
    "quirk of the wrong kind": (provider("quirks: {stream_usage: 1}"), 6, "not true or false", "true or false"),
    "yes is not true": (provider("quirks: {stream_usage: yes}"), 6, '"yes", not true or false', "true or false"),
    "quirk with a bad choice": (provider("quirks: {output_limit_field: max_tokns}"), 6, "it can be max_tokens", '"max_tokens"'),
    "bad transport": (provider("transport: httpx"), 6, 'is "httpx"; it can be http, aiohttp', "http"),
    "proxy with http transport": (provider("transport: http\n    proxy: http://p:1"), 6, "knows no proxy", "aiohttp"),
    "proxy with a password": (provider("proxy: http://u:p@p:1"), 6, "key or password", "revoke"),
    "slash in a provider's name": ("providers:\n  a/b: {dialect: local}\n", 2, "cannot name a provider", "letters"),
    "space in a model's name": (provider(row="{serves: a b}"), 5, "is not a name", "no spaces"),
    "price in quotes": (provider(row='{price: {input: "2.00"}}'), 5, '"2.00" is not a price', "no quotes"),
    "price with a dollar": (provider(row="{price: {input: $2}}"), 5, "is not a price", "no $"),
    "price with a comma": (provider(row="{price: {input: '2,00'}}"), 5, "is not a price", "decimal"),
    "negative price": (provider(row="{price: {input: -1}}"), 5, "is negative", "what the provider charges"),
    "price too fine": (provider(row="{price: {input: 0.0000001}}"), 5, "finer than can be kept", "6 decimals"),
    "price too fine by far": (provider(row="{price: {input: 1e-999999999}}"), 5, "finer than", "decimals"),
    "price too high": (provider(row="{price: {input: 1e999999999}}"), 5, "over 1000000 USD", "per million"),
    "price infinite": (provider(row="{price: {input: .inf}}"), 5, "is not a price", "decimal"),
    "price true": (provider(row="{price: {input: true}}"), 5, "is not a price", "decimal"),
    "price is a number": (provider(row="{price: 2}"), 5, "price is 2, not a mapping", "key: value"),
    "misspelt price": (provider(row="{price: {inptu: 2}}"), 5, 'did you mean "input"', '"input"'),
    "override without condition": (provider(row="{price: {overrides: [{input: 1}]}}"), 5, "no condition", "when it holds"),
    "override without price": (provider(row="{price: {overrides: [{from: 2026-01-01}]}}"), 5, "names no price", "input"),
    "override half a clock": (
        provider(row="{price: {overrides: [{input: 1, utc_start: 16:30}]}}"), 5, "go together", "both",
    ),
    "override bad clock": (
        provider(row="{price: {overrides: [{input: 1, utc_start: 25:00, utc_end: 1:00}]}}"), 5, "time of day", "HH:MM",
    ),
    "override ends before it begins": (
        provider(row="{price: {overrides: [{input: 1, from: 2026-02-01, until: 2026-01-01}]}}"),
        5,
        "before `from`",
        "exchange",
    ),
    "context zero": (provider(row="{context_tokens: 0}"), 5, "context_tokens is 0", "> 0"),
    "context negative": (provider(row="{context_tokens: -5}"), 5, "context_tokens is -5", "> 0"),
    "context with a unit": (provider(row="{context_tokens: 64k}"), 5, "not a whole number", "whole number"),
    "context a decimal": (provider(row="{context_tokens: 1.5}"), 5, "not a whole number", "whole number"),
    "context absurd": (provider(row="{context_tokens: 99999999999}"), 5, "context_tokens is 99999999999", "<="),
    "output over context": (provider(row="{context_tokens: 10, max_output_tokens: 11}"), 5, "over context_tokens", "correct"),
    "bad state": (provider(row="{state: dead}"), 5, "it can be live, unverified, retired", "write one of"),
    "bad date": (provider(row="{ends_on: tomorrow}"), 5, "is not a date", "YYYY-MM-DD"),
    "impossible date": (provider(row="{ends_on: 2026-02-30}"), 5, "is not a date", "YYYY-MM-DD"),
    "unknown capability": (provider(row="{capabilities: {toolz: true}}"), 5, 'did you mean "tools"?', '"tools"'),
    "unknown capability in a list": (provider(row="{capabilities: [toolz]}"), 5, 'did you mean "tools"?', '"tools"'),
    "claim about nothing": (
        provider(row="{claims: [{field: contxt_tokens, value: 1, source: s}]}"), 5, "no figure", '"context_tokens"',
    ),
    "claim without source": (provider(row="{claims: [{field: price, value: 1}]}"), 5, 'needs "source"', "add"),
    "file at a remote provider": (provider(row="{file: a.gguf}"), 5, "only local models have file", "dialect: local"),
    "local without file": (LOCAL + "{}\n", 5, 'needs "file"', ".gguf"),
    "local file that is none": (LOCAL + "{file: model.bin}\n", 5, "not a GGUF file", "bundled"),
    "local file that climbs": (LOCAL + "{file: ../../x.gguf}\n", 5, "not a GGUF file", "bundled"),
    "local with base_url": ("providers:\n  l:\n    dialect: local\n    base_url: http://h/v1\n", 4, "no base_url", "openai"),
    "local with api_key": ("providers:\n  l:\n    dialect: local\n    api_key: env:A\n", 4, "has no api_key", "take it out"),
    "two local providers": ("providers:\n  l: {dialect: local}\n  m: {dialect: local}\n", 3, "local provider already", "under l"),
    "too many slots": (LOCAL + "{file: a.gguf, slots: 65}\n", 5, "slots is 65", "<= 16"),
    "too many threads": (LOCAL + "{file: a.gguf, threads: 513}\n", 5, "threads is 513", "<= 512"),
    "no threads": (LOCAL + "{file: a.gguf, threads: 0}\n", 5, "threads is 0", ">= 1"),
    "no slots": (LOCAL + "{file: a.gguf, slots: 0}\n", 5, "slots is 0", ">= 1"),
    "bad load": (LOCAL + "{file: a.gguf, load: later}\n", 5, "it can be boot, lazy", "boot"),
    "demo model behind a real name": (
        LOCAL + "\n        file: bundled\n        serves: mixtral-8x7b\n", 7, "only to its own name, demo", "fallback",
    ),
    "demo model under its file's name": (LOCAL + "{file: bundled}\n", 5, "only to its own name", "serves: demo"),
    "unknown route key": (routes("  big: {polcy: price}\n"), 8, 'did you mean "policy"?', '"policy"'),
    "unknown policy": (routes("  big:\n    policy: cheapest\n"), 9, "it can be balanced, ordered", "write one of"),
    "route for nothing": (routes("  bg: {}\n"), 8, 'no model serves "bg"', "endpoints:"),
    "endpoint names nothing": (routes("  big:\n    endpoints: [mine/bg]\n"), 9, 'did you mean "mine/big"', '"mine/big"'),
    "endpoint twice": (routes("  big:\n    endpoints: [mine/big, mine/big]\n"), 9, "named twice", "one of the two"),
    "no endpoints": (routes("  big:\n    endpoints: []\n"), 9, "is empty", "leave the key out"),
    "endpoints is text": (routes("  big:\n    endpoints: mine/big\n"), 9, "not a list", "list"),
    "fallback names nothing": (routes("  big:\n    fallback:\n      - bgi\n"), 10, 'fallback "bgi" names nothing', '"big"'),
    "fallback on itself": (routes("  big:\n    fallback: [big]\n"), 9, "falls back on itself", "another Route"),
    "fallback on its own alias": (
        routes("  big:\n    aliases: [b]\n    fallback: [b]\n"), 10, "falls back on itself", "another",
    ),
    "fallback twice": (routes("  big:\n    fallback: [mine/big, mine/big]\n"), 9, "named twice", "one of the two"),
    "alias twice": (routes("  big:\n    aliases: [b, b]\n"), 9, "already", "one of the two"),
    "alias of two routes": (
        routes("  big: {aliases: [b]}\n  other: {endpoints: [mine/big], aliases: [b]}\n"),
        9,
        'an alias of the Route "big"',
        "one of the two",
    ),
    "alias is a route": (
        routes("  big: {aliases: [other]}\n  other: {endpoints: [mine/big]}\n"), 8, "the name of a Route (line 9)", "keep one",
    ),
    "alias is a served model": (
        routes("  other: {endpoints: [mine/big], aliases: [big]}\n"), 8, "a Model that mine/big serves", "keep one",
    ),
    "alias is an endpoint": (routes("  big: {aliases: [mine/big]}\n"), 8, "the id of an Endpoint", "keep one"),
    "alias is the route itself": (routes("  big: {aliases: [big]}\n"), 8, "the Route's own name", "keep one"),
    "route is an endpoint": (routes("  mine/big: {endpoints: [mine/big]}\n"), 8, "has the id of an Endpoint", "another name"),
    "model is an endpoint": (provider(row="{serves: mine/big}"), 5, "is also the id of an Endpoint", "another name"),
    "weights without the policy": (routes("  big:\n    weights: {mine/big: 1}\n"), 9, "only `policy: weighted` has weights", "policy"),
    "weighted without weights": (routes("  big:\n    policy: weighted\n"), 9, 'needs "weights"', "add `weights:"),
    "weight of nothing": (
        routes("  big:\n    policy: weighted\n    weights:\n      mine/bg: 1\n"), 11, 'did you mean "mine/big"', '"mine/big"',
    ),
    "weight twice": (
        routes("  big:\n    policy: weighted\n    weights:\n      mine/big: 1\n      mine/big: 2\n"), 12, "duplicate key", "keep one",
    ),
    "weights all zero": (
        routes("  big:\n    policy: weighted\n    weights: {mine/big: 0}\n"), 10, "no weight is above 0", "at least one",
    ),
    "weight negative": (
        routes("  big:\n    policy: weighted\n    weights: {mine/big: -1}\n"), 10, "-1 is not a weight", "from 0 to",
    ),
    "weight in words": (
        routes("  big:\n    policy: weighted\n    weights: {mine/big: most}\n"), 10, '"most" is not a weight', "plain number",
    ),
    "weight absurd": (
        routes("  big:\n    policy: weighted\n    weights: {mine/big: 1e99999999}\n"), 10, "is not a weight", "from 0 to",
    ),
    "weights as a list": (
        routes("  big:\n    policy: weighted\n    weights: [mine/big]\n"), 10, "a list, not a mapping", "key: value",
    ),
    "score without the policy": (routes("  big:\n    score: {cost: 1}\n"), 9, "only `policy: score` has a score", "policy: score"),
    "score of nothing": (routes("  big:\n    policy: score\n    score: {}\n"), 10, "no figure counts", "at least one"),
    "score all zero": (routes("  big:\n    policy: score\n    score: {cost: 0}\n"), 10, "no figure counts", "at least one"),
    "misspelt score": (routes("  big:\n    policy: score\n    score: {csot: 1}\n"), 10, 'did you mean "cost"', '"cost"'),
    "local nowhere": (routes("  big:\n    local: priced\n"), 9, "it can be last, first, by_policy", "write one of"),
    "rescue in words": (routes("  big:\n    rescue: always\n"), 9, "not true or false", "true or false"),
    "hedge a number": (routes("  big:\n    hedge: 2\n"), 9, "not true or false", "true or false"),
    "a cache for no time": (routes("  big:\n    cache: {ttl_s: 0}\n"), 9, "ttl_s is 0", ">= 1"),
    "a cache without a time": (routes("  big:\n    cache: {}\n"), 9, "ttl_s", "ttl_s"),
    "a cache that is a flag": (routes("  big:\n    cache: true\n"), 9, "not a mapping", "key: value"),
    "unknown overflow": (routes("  big:\n    overflow: {compres: true}\n"), 9, 'did you mean "compress"', '"compress"'),
    "overflow in words": (routes("  big:\n    overflow: compress\n"), 9, "not a mapping", "key: value"),
    "timeout with a unit": (routes("  big:\n    timeouts: {idle_timeout_s: 10s}\n"), 9, "not a number of seconds", "no unit"),
    "timeout zero": (routes("  big:\n    timeouts: {idle_timeout_s: 0}\n"), 9, "would end everything", "at least"),
    "timeout absurd": (routes("  big:\n    timeouts: {idle_timeout_s: 1e999}\n"), 9, "not a number of seconds", "from 0 to"),
    "timeout over the total": (
        routes("  big:\n    timeouts: {idle_timeout_s: 30, total_timeout_s: 20}\n"), 9, "never be reached", "shorter",
    ),
    "misspelt timeout": (routes("  big:\n    timeouts: {idle_timeout: 1}\n"), 9, 'did you mean "idle_timeout_s"', "idle"),
    "unknown quantization": (provider(row="{quantization: q4}"), 5, "it can be int4, int8", "write"),
    "unknown parameter": (provider(row="{parameters: [temprature]}"), 5, "there is no member", "temperature"),
    "parameters are text": (provider(row="{parameters: seed}"), 5, "not a list", "list"),
    "distillable in words": (provider(row="{distillable: maybe}"), 5, "not true or false", "true or false"),
    "data policy in words": (provider("data_policy: none"), 6, "not a mapping", "key: value"),
    "unknown data policy": (provider("data_policy: {colects: false}"), 6, 'did you mean "collects"', '"collects"'),
    "nothing in flight": (GOOD + "gateway: {in_flight_max: 0}\n", 7, "in_flight_max is 0", ">= 1"),
    "too much in flight": (GOOD + "gateway: {in_flight_per_key_max: 1000000}\n", 7, "in_flight_per_key_max", "<= 100000"),
    "unknown gateway key": (GOOD + "gateway: {prt: 1}\n", 7, 'did you mean "port"?', '"port"'),
    "port too high": (GOOD + "gateway:\n  port: 70000\n", 8, "port is 70000", "<= 65535"),
    "port is text": (GOOD + "gateway: {port: '80'}\n", 7, "not a whole number", "without quotes"),
    "host with a port": (GOOD + "gateway: {host: 'localhost:80'}\n", 7, "is not a host", "without port"),
    "open bind without keys": (GOOD + "gateway:\n  host: 0.0.0.0\n", 8, "no client keys", "127.0.0.1"),
    "client key not set": (GOOD + "gateway:\n  client_keys:\n    - env:NOT_THERE\n", 9, "NOT_THERE is not set", "export"),
    "admin token not set": (GOOD + "gateway: {admin_token: env:NOT_THERE}\n", 7, "NOT_THERE is not set", "export"),
    "pasted admin token": (GOOD + "gateway: {admin_token: mga-0123456789abcdef0123456789}\n", 7, "looks like a key", "revoke"),
    "bad network": (GOOD + "gateway: {trusted_proxies: [10.0.0.0/99]}\n", 7, "not an address or network", "10.0.0.0/8"),
    "negative drain": (GOOD + "gateway: {drain_s: -1}\n", 7, "drain_s is -1", ">= 0"),
    "tls without key": (GOOD + "gateway: {tls: {cert: /a.pem}}\n", 7, 'needs "key"', "add `key:`"),
    "tls file missing": (GOOD + "gateway: {tls: {cert: /no/a.pem, key: /no/b.pem}}\n", 7, "no file /no/a.pem", "PEM"),
    "tls relative": (GOOD + "gateway: {tls: {cert: a.pem, key: /b.pem}}\n", 7, "not an absolute path", "from / on"),
    "duplicate provider": ("providers:\n  a: {dialect: local}\n  a: {dialect: local}\n", 3, '"a" is already there on line 2', "one"),
    "duplicate top key": ("providers: {}\nroutes: {}\nproviders: {}\n", 3, "duplicate key", "keep one"),
    "duplicate model": (provider(row="{}, big: {}"), 5, 'duplicate key: "big"', "keep one"),
    "tab": ("providers:\n\ta: {}\n", 2, "not YAML", "spaces, not tabs"),
    "unclosed bracket": ("providers: {a: {dialect: local\n", 2, "not YAML", "bracket"),
    "unclosed quote": ('providers: "a\n', 2, "not YAML", "quotation mark"),
    "stray colon": ("providers:\n  a: b: c\n", 2, "not YAML", "quote the value"),
    "wrong indent": ("providers:\n    a: {dialect: local}\n  b: {dialect: local}\n", 3, "not YAML", "indented"),
    "python tag": ("providers: !!python/object/apply:os.system [id]\n", 1, "tag", "leave the tag out"),
    "str tag": ("providers: !!str a\n", 1, "tag", "quotes"),
    "merge key": ("providers:\n  a: &a {dialect: local}\n  b:\n    <<: *a\n", 4, "merge keys", "write the keys out"),
    "unknown alias": ("providers: *nowhere\n", 1, "refers to nothing above it", "define it"),
    "list as key": ("providers:\n  ? [a]\n  : b\n", 2, "used as a key", "plain name"),
    "two documents": (GOOD + "---\nproviders: {}\n", 7, "second document", "---"),
    "control character": ("providers:\n  a: \x01\n", 2, "control character", "remove"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_refused_with_its_line_and_a_remedy(case: str, tmp_path: Path):
    text, line, message, fix = CASES[case]
    path = tmp_path / "providers.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    told = [(problem.where, problem.message, problem.fix) for problem in caught.value.problems]
    assert any(where == f"{path}:{line}" and message in said and fix in remedy for where, said, remedy in told), told
    assert all(remedy for _, _, remedy in told)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "sk-" in case[0] or "hunter2" in case[0]])
def test_a_pasted_secret_is_never_repeated(case: str, tmp_path: Path):
    path = tmp_path / "providers.yaml"
    path.write_text(CASES[case][0])
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    told = str(caught.value) + repr(caught.value.problems)
    assert "0123456789abcdef" not in told
    assert "abcdefgh12345678" not in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "text",
    [
        "providers:\n  sk-abcdefgh12345678: {}\n",
        "providers:\n  sk-abcdefgh12345678: {dialect: x, models: {sk-abcdefgh12345678: {zz: 1}}}\n",
        "sk-abcdefgh12345678: 1\nsk-abcdefgh12345678: 2\n",
        "providers: {}\nroutes: {sk-abcdefgh12345678: {policy: sk-abcdefgh12345678}}\n",
        "providers: !sk-abcdefgh12345678 a\n",
        "providers: {}\ngateway: {port: sk-abcdefgh12345678, host: [sk-abcdefgh12345678]}\n",
        "providers: {a: {dialect: sk-abcdefgh12345678, transport: sk-abcdefgh12345678, sk-abcdefgh12345678: 1}}\n",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated_either(text: str, tmp_path: Path):
    path = tmp_path / "providers.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    report = "".join(traceback.format_exception(caught.value))
    assert "abcdefgh12345678" not in report + repr(caught.value.problems)


LINES = (Path(__file__).parents[3] / "providers.yaml").read_text().splitlines(keepends=True)


@settings(max_examples=2000 if os.environ.get("MIXGATE_TEST_FULL") else 100, deadline=None)
@given(data=st.data())
def test_the_shipped_file_mangled_in_any_way_loads_or_is_refused_with_reasons(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(lines) - 1))
        line = lines[position]
        cut = data.draw(st.integers(0, len(line)))
        noise = data.draw(
            st.sampled_from(["", "{", "}", "[", ": ", "- ", "\t", " ", "'", '"', "&a ", "*a", "0", "x", "\n", "null"])
        )
        lines[position] = line[:cut] + noise + line[cut + data.draw(st.integers(0, 3)) :]
    path = tmp_path_factory.getbasetemp() / "mangled.yaml"
    path.write_text("".join(lines))
    problems: tuple[ConfigProblem, ...] = ()
    try:
        load(path, {})
    except ConfigError as error:
        problems = error.problems
    assert all(re.fullmatch(rf"{re.escape(str(path))}:[0-9]+", problem.where) and problem.fix for problem in problems)


def test_everything_wrong_is_told_at_once_in_the_order_of_lines(tmp_path: Path):
    path = tmp_path / "providers.yaml"
    path.write_text("gateway: {prt: 1}\nproviders:\n  a: {dialect: x}\n  b: {dialect: openai, modls: {}}\nroute: {}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    lines = [int(problem.where.rpartition(":")[2]) for problem in caught.value.problems]
    assert lines == [1, 3, 4, 5]


def test_a_thousand_mistakes_are_told_in_a_bounded_list(tmp_path: Path):
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n" + "".join(f"  p{number}: {{}}\n" for number in range(1000)))
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert len(caught.value.problems) == 101
    assert "900 more" in caught.value.problems[-1].message


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "nowhere.yaml", {})
    (problem,) = caught.value.problems
    assert "cannot be read" in problem.message
    assert problem.where == str(tmp_path / "nowhere.yaml")
    assert "--config" in problem.fix


def test_a_folder_is_not_a_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})


def test_the_good_file_that_the_broken_ones_are_made_of_is_good(tmp_path: Path):
    path = tmp_path / "providers.yaml"
    path.write_text(GOOD)
    assert set(load(path, {}).endpoints) == {"mine/big"}
