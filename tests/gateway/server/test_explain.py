"""`POST /v1/route/explain`, behind the HTTP edge: the Engine's decision, and no provider asked."""

from pathlib import Path

import msgspec
import pytest

from gateway.config.load import load
from gateway.engine import Engine
from gateway.explain.view import Explanation
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.server.explain import explain_request
from gateway.server.openai_request import decode_chat
from providers.errors import MixgateError

CONFIG = """\
providers:
  p:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      dear: {serves: m, context_tokens: 100000, price: {input: 2, output: 8}}
      cheap: {serves: m, context_tokens: 100000, price: {input: 0.5, output: 2}}
      tiny: {serves: m, context_tokens: 20, price: {input: 0.1, output: 1}}
routes:
  m: {policy: price}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    return Fleet(load(path, {}), {}, {})


def engine() -> Engine:
    return Engine(Health(lambda: 0.5), unix_time_s=lambda: 1_795_000_000.0, draw=lambda: 0.5)


async def test_the_decision_is_told_with_its_order_its_costs_and_its_exclusions(fleet: Fleet):
    request = decode_chat(
        b'{"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "the secret words"}]}'
    )
    body = msgspec.json.encode(explain_request(engine(), request, fleet))
    shown = msgspec.json.decode(body, type=Explanation)
    assert shown.requested == ("m",)
    assert shown.policy == "price"
    assert shown.would_ask == ("p/cheap", "p/dear")
    assert [one.expected_cost for one in shown.candidates] == sorted(
        (one.expected_cost or "" for one in shown.candidates), key=float
    )
    (tiny,) = shown.excluded
    assert (tiny.endpoint, tiny.code, tiny.limit) == ("p/tiny", "context", 20)
    assert tiny.wanted is not None
    assert tiny.wanted > 100
    assert b"secret" not in body


async def test_an_unknown_model_is_refused_as_for_a_real_request(fleet: Fleet):
    request = decode_chat(b'{"model": "mm", "messages": [{"role": "user", "content": "x"}]}')
    with pytest.raises(MixgateError, match="did you mean m"):
        explain_request(engine(), request, fleet)
