"""Raw hostile bytes into every dialect's decoder: no exception, no absurd figure, no success out of nonsense."""

import json
import os
import random

import pytest

from providers import DIALECTS
from providers.base import Endpoint
from providers.errors import ProviderError
from providers.messages import AnswerFailed, UsageReported
from tests.contract.dialect_cases import CASES
from tests.fakes.hostile_answers import FIGURES, MIB, NOT_CHAT

FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
READ_IN_BOUNDS = ("mindstudio", "local")
"""One JSON answer, which the engine bounds, and lines of our own worker, which its frames bound."""
ENDPOINT = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")
ANSWERS = [(dialect, name) for dialect in DIALECTS for name in CASES.get(dialect, ())]
MUTATIONS = 3000 if FULL else 100
SIZES = (1, 7, 64, 4096, 1 << 20)
BAD_BYTES = (b"", b"\xff", b"\0", b'"', b"{", b"[" * 2000, b"-1", b"1e999", b"\r\n\r\n", b"data: ", b"NaN", b"9" * 5000)


def decoded(dialect, body, *, stream, size):
    """All events, with the promises of a decoder checked."""
    decoder = DIALECTS[dialect].decoder(ENDPOINT, stream=stream)
    found = []
    for start in range(0, len(body), size):
        found += decoder.feed(body[start : start + size])
        if found and isinstance(found[-1], AnswerFailed):
            break
    else:
        found += decoder.finish()
    for place, event in enumerate(found):
        if isinstance(event, AnswerFailed):
            assert place == len(found) - 1
            assert isinstance(event.error, ProviderError)
        if isinstance(event, UsageReported) and dialect != "local":  # that one is our own worker
            usage = event.usage
            for figure in (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens):
                assert figure is None or (type(figure) is int and 0 <= figure <= 4_000_000_000)
    return found


def with_figure(rng, value):
    """The same JSON with some values replaced by what no provider should send."""
    if rng.random() < 0.08:
        return rng.choice(FIGURES)
    if isinstance(value, dict):
        return {name: with_figure(rng, inner) for name, inner in value.items()}
    return [with_figure(rng, inner) for inner in value] if isinstance(value, list) else value


def spoiled(rng, body):
    """One damage: to the bytes, or to the values of the JSON in them."""
    if rng.random() < 0.5:
        place = rng.randrange(len(body) + 1)
        return body[:place] + rng.choice((*BAD_BYTES, rng.randbytes(8))) + body[place + rng.choice((0, 1, 5, 50)) :]
    lines = []
    for line in body.split(b"\n"):
        lead = b"data: " if line.startswith(b"data: ") else b""
        try:
            lines.append(lead + json.dumps(with_figure(rng, json.loads(line[len(lead) :]))).encode())
        except ValueError:
            lines.append(line)
    return b"\n".join(lines)


@pytest.mark.parametrize(("dialect", "name"), ANSWERS)
def test_no_bytes_make_a_decoder_raise(dialect, name):
    case = CASES[dialect][name]
    rng = random.Random(f"{dialect}/{name}")
    for _ in range(MUTATIONS):
        decoded(dialect, spoiled(rng, case.body), stream=case.stream, size=rng.choice(SIZES))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_decoder_takes_what_is_no_answer_for_one(dialect, stream):
    for name, (body,) in NOT_CHAT.items():
        if len(body) < MIB and name not in ("invalid UTF-8", "a lone surrogate") and "numbered" not in name:
            for wrapped in (body, b"data: " + body + b"\n\n", b"event: x\ndata: " + body + b"\n\n"):
                found = decoded(dialect, wrapped, stream=stream, size=4096)
                assert found, name
                assert isinstance(found[-1], AnswerFailed), name
    for endless in (b"a", b"data: a\n", b": x\n", b"\0", b"{"):
        decoder = DIALECTS[dialect].decoder(ENDPOINT, stream=True)
        fed = 0
        while fed < 40 * MIB and not any(isinstance(e, AnswerFailed) for e in decoder.feed(endless * 65536)):
            fed += 65536
        assert fed < 17 * MIB or dialect in READ_IN_BOUNDS
