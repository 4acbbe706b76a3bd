"""Which plugins are ours, which are let be, and which are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError
from gateway.routing.plugins import NO_PLUGINS, PLUGINS, PLUGINS_MAX, read_plugins
from providers.messages import ChatRequest, Message
from providers.parameters import COMPRESSION


def read(**members: Any) -> bool | None:
    return read_plugins(ChatRequest(messages=(Message(role="user", content="hi"),), **members)).compress


@pytest.mark.parametrize(
    ("members", "compress"),
    [
        ({}, None),
        ({"plugins": []}, None),
        ({"plugins": [{"id": name} for name in PLUGINS if name != COMPRESSION]}, None),
        ({"plugins": [{"id": COMPRESSION}]}, True),
        ({"plugins": [{"id": COMPRESSION, "engine": "middle-out", "enabled": None, "more": 1}]}, True),
        ({"plugins": [{"id": COMPRESSION, "enabled": False}]}, False),
        ({"transforms": ["middle-out"]}, True),
        ({"transforms": []}, False),
        ({"transforms": ["middle-out"], "plugins": [{"id": COMPRESSION, "enabled": False}]}, False),
        ({"transforms": [], "plugins": [{"id": COMPRESSION}]}, True),
    ],
)
def test_only_cutting_a_prompt_is_ours(members: dict[str, Any], compress: bool | None):
    assert read(**members) is compress


def test_a_request_without_plugins_costs_nothing():
    assert read_plugins(ChatRequest(messages=(Message(role="user", content="hi"),))) is NO_PLUGINS


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"plugins": ["web"]}, "plugins[0]"),
        ({"plugins": [{"id": "web"}, {}]}, "plugins[1].id"),
        ({"plugins": [{"id": 7}]}, "plugins[0].id"),
        ({"plugins": [{"id": "context-compresion"}]}, "plugins[0].id"),
        ({"plugins": [{"id": COMPRESSION, "engine": "outside-in"}]}, "plugins[0].engine"),
        ({"plugins": [{"id": COMPRESSION, "enabled": "yes"}]}, "plugins[0].enabled"),
        ({"plugins": [{"id": "web"}] * (PLUGINS_MAX + 1)}, "plugins"),
        ({"transforms": ["middle-in"]}, "transforms[0]"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_by_its_name(members: dict[str, Any], param: str):
    with pytest.raises(InvalidRequestError) as caught:
        read(**members)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")


entries = st.dictionaries(
    st.sampled_from(["id", "engine", "enabled", "x"]),
    st.sampled_from([None, True, 1, "middle-out", *PLUGINS]) | st.text(max_size=5),
)


@given(st.lists(entries | st.none() | st.integers() | st.text(max_size=3), max_size=4))
def test_whatever_plugins_holds_is_read_or_refused_by_a_name_within_it(plugins: list[Any]):
    found: bool | str | None = None
    try:
        found = read(plugins=plugins)
    except InvalidRequestError as error:
        found = error.param
    assert found in (None, True, False) or str(found).startswith("plugins[")
