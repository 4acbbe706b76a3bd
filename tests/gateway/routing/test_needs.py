import pytest

from gateway.routing.needs import count_images, needs
from providers.messages import ChatRequest, Function, Message, Part, ResponseFormat, Tool

HI = Message(role="user", content="hi")
IMAGE = Message(role="user", content=(Part(type="text", text="x"), Part(type="image_url", image_url="y")))
TOOL = Tool(function=Function(name="f"))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, ()),
        ({"tools": (TOOL,)}, ("tools",)),
        ({"tools": (TOOL,), "tool_choice": "none"}, ()),
        ({"tools": ()}, ()),
        ({"functions": (Function(name="f"),)}, ("tools",)),
        ({"functions": (Function(name="f"),), "function_call": "none"}, ()),
        ({"response_format": ResponseFormat(type="json_object")}, ("json_object",)),
        ({"response_format": ResponseFormat(type="json_schema")}, ("json_schema",)),
        ({"response_format": ResponseFormat(type="text")}, ()),
        ({"logprobs": True}, ("logprobs",)),
        ({"logprobs": False}, ()),
        ({"messages": (HI, IMAGE)}, ("vision",)),
        ({"messages": (HI, Message(role="assistant", content="So"))}, ()),
        ({"messages": (HI, Message(role="assistant", content="So", prefix=True))}, ("prefill",)),
        ({"messages": (Message(role="assistant", content="So", prefix=True), HI)}, ()),
        ({"messages": (IMAGE,), "tools": (TOOL,), "logprobs": True}, ("tools", "logprobs", "vision")),
    ],
)
def test_a_request_needs_what_it_asks_for(members, expected):
    assert needs(ChatRequest(**{"messages": (HI,), **members})) == expected


def test_images_are_counted_over_all_turns():
    assert count_images(ChatRequest(messages=(IMAGE, HI, IMAGE))) == 2
    assert count_images(ChatRequest(messages=(HI,))) == 0
