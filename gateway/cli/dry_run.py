"""What would be decided for a body: asked of a running gateway, or worked out from the configuration alone."""

import asyncio
import os
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.cli.facts import off_reason
from gateway.cli.output import EXIT_CONFIGURATION, fail
from gateway.config.catalogue import Catalogue
from gateway.engine import Engine
from gateway.explain.view import Explanation
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.server.explain import explain_request
from gateway.server.openai_request import decode_chat
from providers.json_values import members

KEY_VARIABLE: Final = "MIXGATE_CLIENT_KEY"
PATH: Final = "/v1/route/explain"
TIMEOUT_S: Final = 30.0
ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024


def ask_gateway(url: str, body: bytes, catalogue: Catalogue | None) -> Explanation:
    """What a running gateway would decide now, health and all. Ends the command where it cannot say.

    Args:
        url: Its base URL, with or without the `/v1` behind it.
        body: Of a chat completion.
        catalogue: Of the gateway on this machine, whose certificate is then believed.
    """
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if key := os.environ.get(KEY_VARIABLE):
        headers["authorization"] = f"Bearer {key}"
    tls = None if catalogue is None else catalogue.gateway.tls
    root = url.rstrip("/").removesuffix("/v1").removesuffix("/api")
    verify: ssl.SSLContext | bool = True if tls is None else ssl.create_default_context(cafile=str(tls.cert))
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=verify) as client,
            client.stream("POST", root + PATH, content=body, headers=headers) as response,
        ):
            answer = _read(response)
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        fail(
            f"no gateway answered at {_shown(url)}: {error or type(error).__name__}",
            "start one with `mixgate serve`, name it with --url, or use --offline",
        )
    if status != 200:
        _refused(url, status, answer)
    try:
        return msgspec.json.decode(answer, type=Explanation)
    except msgspec.DecodeError as error:
        fail(f"{_shown(url)} answered something else: {error}", "point --url at a Mixgate of this version")


def decide_offline(body: bytes, catalogue: Catalogue) -> Explanation:
    """What follows from the configuration and the keys alone, as if every Endpoint were well.

    Raises:
        MixgateError: The body is no chat completion, or names no model of ours.
    """
    return msgspec.convert(asyncio.run(_decide(body, catalogue, os.environ)), Explanation)


async def _decide(body: bytes, catalogue: Catalogue, env: Mapping[str, str]) -> dict[str, Any]:
    reasons = {name: off_reason(catalogue, endpoint, env) for name, endpoint in catalogue.endpoints.items()}
    fleet = Fleet(catalogue, {}, {name: reason for name, reason in reasons.items() if reason})
    draw = random.SystemRandom().random
    engine = Engine(Health(draw), unix_time_s=time.time, draw=draw)
    return members(msgspec.to_builtins(explain_request(engine, decode_chat(body), fleet)))


def _read(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size_bytes = 0
    for part in response.iter_raw():
        size_bytes += len(part)
        if size_bytes > ANSWER_MAX_BYTES:
            raise httpx.DecodingError("the answer is larger than any explanation")
        parts.append(part)
    return b"".join(parts)


def _refused(url: str, status: int, answer: bytes) -> NoReturn:
    """Pass on what the gateway says."""
    try:
        error = members(members(msgspec.json.decode(answer)).get("error"))
    except msgspec.DecodeError:
        error = {}
    said = error.get("message") or "it did not say why"
    if status in (401, 403):
        fix = f"put one of its client keys into {KEY_VARIABLE}"
    elif status == 404 and error.get("code") != "model_not_found":
        fix = "point --url at a Mixgate of this version"
    else:
        fix = "correct the body"
    fail(f"{_shown(url)} refused (HTTP {status}): {said}", fix, EXIT_CONFIGURATION if status < 500 else 1)


def _shown(url: str) -> str:
    """Scheme, host and path: what else is in a URL may be nobody's business."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "that URL"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
