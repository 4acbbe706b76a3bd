import pytest

from gateway.config.load import load
from gateway.routing.plan import needs, plan
from gateway.routing.resolve import resolve
from providers.messages import ChatRequest, Function, Message, Part, ResponseFormat, Tool

CONFIG = """
providers:
  a:
    dialect: openai
    base_url: http://127.0.0.1:1/v1
    models:
      one: {serves: m, context_tokens: 100, capabilities: {vision: true}}
      two: {serves: m, context_tokens: 100, state: unverified, capabilities: {vision: true, logprobs: true}}
      three: {serves: m, context_tokens: 100, capabilities: {logprobs: true}}
      four: {serves: m, context_tokens: 100, state: retired}
      five: {serves: other, context_tokens: 100}
routes:
  m: {policy: POLICY, fallback: [last, a/one]}
  last: {policy: ordered, endpoints: [a/five, a/three]}
"""
HI = Message(role="user", content="hi")
IMAGE = Message(role="user", content=(Part(type="text", text="x"), Part(type="image_url", image_url="y")))


@pytest.fixture
def planned(tmp_path):
    def make(needed=(), off=None, policy="balanced", name="m"):
        path = tmp_path / "providers.yaml"
        path.write_text(CONFIG.replace("POLICY", policy))
        catalogue = load(path, {})
        made = plan(resolve(name, catalogue), needed, catalogue, off or {})
        return [endpoint.id for endpoint in made.candidates], {gone.endpoint: gone for gone in made.excluded}

    return make


def test_verified_ones_come_first_then_the_fallbacks_and_nobody_twice(planned):
    candidates, excluded = planned()
    assert candidates == ["a/one", "a/three", "a/two", "a/five"]
    assert {name: gone.code for name, gone in excluded.items()} == {"a/four": "retired"}


def test_an_explicit_order_is_kept(planned):
    assert planned(policy="ordered")[0] == ["a/one", "a/two", "a/three", "a/five"]


def test_what_is_off_or_cannot_is_left_out_with_its_reason(planned):
    candidates, excluded = planned(("vision",), {"a/one": "set KEY"})
    assert candidates == ["a/two"]
    assert (excluded["a/one"].code, excluded["a/one"].reason) == ("off", "set KEY")
    assert excluded["a/three"].code == "no_vision"
    assert excluded["a/five"].code == "no_vision"


def test_every_capability_that_is_needed_counts(planned):
    assert planned(("vision", "logprobs"))[0] == ["a/two"]


def test_an_endpoint_by_its_id_stands_alone(planned):
    assert planned(name="a/two")[0] == ["a/two"]
    assert planned(name="a/four")[0] == []


def test_planning_twice_gives_the_same(planned):
    assert planned(("logprobs",)) == planned(("logprobs",))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, ()),
        ({"tools": (Tool(function=Function(name="f")),)}, ("tools",)),
        ({"tools": (Tool(function=Function(name="f")),), "tool_choice": "none"}, ()),
        ({"tools": ()}, ()),
        ({"functions": (Function(name="f"),)}, ("tools",)),
        ({"response_format": ResponseFormat(type="json_object")}, ("json_object",)),
        ({"response_format": ResponseFormat(type="json_schema")}, ("json_schema",)),
        ({"response_format": ResponseFormat(type="text")}, ()),
        ({"logprobs": True}, ("logprobs",)),
        ({"logprobs": False}, ()),
        ({"messages": (HI, IMAGE)}, ("vision",)),
    ],
)
def test_a_request_needs_what_it_asks_for(members, expected):
    assert set(needs(ChatRequest(**{"messages": (HI,), **members}))) >= set(expected)
    assert bool(needs(ChatRequest(**{"messages": (HI,), **members}))) == bool(expected)
