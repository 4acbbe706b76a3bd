"""A request that nobody is asked for leaves its record too; and a small prompt is decided about by its size."""

import pytest

from gateway.bill import Origin
from gateway.engine import Engine
from gateway.explain.replay import differences
from gateway.explain.trace import record_of
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.server.openai_request import decode_chat
from providers.errors import MixgateError
from providers.tokens import estimate_request
from tests.fakes.catalogues import catalogue, endpoint, route


class Kept(list):
    """A sink."""

    def put(self, record) -> bool:
        self.append(record)
        return True


def engine(kept) -> Engine:
    return Engine(Health(lambda: 0.5), unix_time_s=lambda: 1_795_000_000.0, draw=lambda: 0.5, sink=kept)


def fleet(**facts) -> Fleet:
    every = [endpoint("p/a", **facts), endpoint("q/b", **facts)]
    return Fleet(catalogue(every, [route(every)]), {}, {})


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (b'"max_tokens": 100000', "context_length_exceeded"),
        (b'"provider": {"only": ["nobody"]}', "unsupported"),
        (b'"provider": {"sort": "beauty"}', "invalid_request"),
        (b'"session_id": "s", "user": "%b"' % (b"x" * 300), "invalid_request"),
    ],
)
async def test_a_refused_request_leaves_a_record_that_replays(asked, code):
    kept = Kept()
    request = decode_chat(b'{"model": "m", "messages": [{"role": "user", "content": "words"}], %b}' % asked)
    with pytest.raises(MixgateError) as raised:
        await engine(kept).answer(
            request, fleet(), origin=Origin(caller="key:1", surface="openai", generation_id="gen-1")
        )
    (trace,) = kept
    record = record_of(trace, "table")
    assert raised.value.code == record.code
    assert (record.id, record.outcome, record.attempts, record.caller) == ("gen-1", "failed", (), "key:1")
    assert record.code == code
    assert differences(record, trace.table) == ()


async def test_an_unknown_model_leaves_no_record():
    kept = Kept()
    request = decode_chat(b'{"model": "unknown", "messages": [{"role": "user", "content": "words"}]}')
    with pytest.raises(MixgateError):
        await engine(kept).answer(request, fleet())
    assert not kept


@pytest.mark.parametrize(("context_tokens", "exactly"), [(100_000, False), (None, False), (250, True)])
async def test_a_prompt_is_estimated_where_its_length_may_matter(context_tokens, exactly):
    text = b"12345 67890 " * 10
    request = decode_chat(b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % text)
    decided = engine(None).explain(request, fleet(context_tokens=context_tokens))
    estimated = estimate_request(request)
    assert (decided.ask.prompt_tokens == estimated) is exactly
    assert decided.ask.prompt_tokens <= estimated
    assert len(decided.plan.candidates) == 2


async def test_for_the_local_worker_every_prompt_is_estimated():
    request = decode_chat(b'{"model": "m", "messages": [{"role": "user", "content": "1234567890"}]}')
    decided = engine(None).explain(request, fleet(context_tokens=None, local=True))
    assert decided.ask.prompt_tokens == estimate_request(request)
