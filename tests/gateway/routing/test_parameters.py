import pytest

from gateway.routing.ask import Ask, Preferences
from gateway.routing.parameters import LOST_MAX, find_losses
from providers.base import Adaptation, Capabilities, WireRequest
from providers.errors import UnsupportedError
from providers.messages import ChatRequest, Function, Message, Tool
from tests.fakes.catalogues import codes, decided, endpoint, names, table

REQUEST = ChatRequest(messages=(Message(role="user", content="hi"),), model="m", top_k=5)
TOOLS = ChatRequest(messages=REQUEST.messages, model="m", tools=(Tool(function=Function(name="f")),))
A, B = endpoint("a/x"), endpoint("b/x")


class Dialect:
    """Adapts what it is told to, or refuses."""

    def __init__(self, *adapted, refuses=None):
        self.adapted = adapted
        self.refuses = refuses
        self.asked = []

    def encode(self, request, endpoint, *, stream):  # noqa: ARG002 (part of the seam)
        self.asked.append(request)
        if self.refuses is not None:
            raise self.refuses
        return WireRequest(url="", body=b"", adapted=self.adapted)


def losses(dialect, request=REQUEST, *, emulating=True):
    return find_losses(request, [A, B], lambda one: dialect if one is A else Dialect(), emulating=emulating)


@pytest.mark.parametrize("action", ["dropped", "clamped"])
def test_what_is_dropped_or_clamped_is_lost(action):
    assert losses(Dialect(Adaptation("top_k", action), Adaptation("top_k", action))) == (("a/x", ("top_k",)),)


@pytest.mark.parametrize("action", ["folded", "merged"])
def test_what_is_only_said_in_another_form_is_not_lost(action):
    assert losses(Dialect(Adaptation("messages[0]", action))) == ()


def test_what_a_dialect_refuses_is_lost_too():
    assert losses(Dialect(refuses=UnsupportedError("no", param="n"))) == (("a/x", ("n",)),)
    assert losses(Dialect(refuses=UnsupportedError("no"))) == (("a/x", ("the request",)),)


def test_a_name_that_holds_anything_else_is_not_repeated():
    (_, lost), *_ = losses(Dialect(Adaptation("a secret\r\nx: y", "dropped"), Adaptation("k" * 65, "dropped")))
    assert lost == ("a member of another name",)


def test_few_members_are_named():
    assert len(losses(Dialect(*(Adaptation(f"p{n}", "dropped") for n in range(99))))[0][1]) == LOST_MAX


@pytest.mark.parametrize("emulating", [True, False])
def test_a_dialect_is_asked_about_what_it_would_really_be_given(emulating):
    dialect = Dialect()
    losses(dialect, TOOLS, emulating=emulating)
    assert bool(dialect.asked[0].tools) is not emulating
    able = endpoint("c/x", capabilities=Capabilities(tools=True))
    find_losses(TOOLS, [able], lambda _: dialect, emulating=emulating)
    assert dialect.asked[1].tools


def test_whoever_would_lose_something_is_left_out_only_where_all_of_it_is_required():
    ask = Ask(losses=(("a/x", ("top_k", "seed")),), preferences=Preferences(require_parameters=True))
    plan = decided(table([A, B], policy="ordered"), ask)
    assert (names(plan.candidates), codes(plan)) == (["b/x"], {"a/x": "parameters"})
    assert plan.excluded[0].reason == "it does not take top_k, seed as asked"
    lenient = Ask(losses=ask.losses, preferences=Preferences(zdr=False))
    assert names(decided(table([A, B], policy="ordered"), lenient).candidates) == ["a/x", "b/x"]


def test_the_one_provider_that_is_allowed_is_one_that_takes_all_of_it():
    ask = Ask(losses=(("a/x", ("seed",)),), preferences=Preferences(require_parameters=True, allow_fallbacks=False))
    assert names(decided(table([A, B], policy="ordered"), ask).candidates) == ["b/x"]
