"""Middle-out: the result fits or there is none, and beginning, end, order and pairs of calls and results survive."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.compression import TEXT_MIN_CHARS, Fits, compress
from gateway.server.openai_request import decode_chat
from providers.messages import ChatRequest, FunctionCall, Message, Part, ToolCall


def say(role: Any, content: str, **members: Any) -> Message:
    return Message(role=role, content=content, **members)


def ask(*messages: Message, **members: Any) -> ChatRequest:
    return ChatRequest(messages=messages, model="m", **members)


def size(request: ChatRequest) -> int:
    return sum(
        10
        + sum(len(call.function.arguments) for call in message.tool_calls or () if call.function)
        + (
            len(message.content or "")
            if message.content is None or isinstance(message.content, str)
            else sum(len(part.text or "") for part in message.content)
        )
        for message in request.messages
    )


def within(limit: int) -> Fits:
    return lambda request: size(request) <= limit


def talk(turns: int, chars: int = 100) -> list[Message]:
    pairs = ((say("user", f"q{n}" + "." * chars), say("assistant", f"a{n}" + "." * chars)) for n in range(turns))
    return [message for pair in pairs for message in pair]


def test_what_fits_stays_as_it_is():
    request = ask(say("system", "s"), say("user", "u"))
    found = compress(request, within(1000))
    assert found is not None
    assert found.request is request
    assert (found.dropped_messages, found.cut_texts) == (0, 0)


def test_turns_go_from_the_middle_and_no_more_than_must():
    request = ask(say("system", "s"), *talk(10), say("user", "last"))
    found = compress(request, within(1000))
    assert found is not None
    texts = [str(message.content)[:2] for message in found.request.messages]
    assert texts[:3] == ["s", "q0", "a0"]
    assert texts[-3:] == ["q9", "a9", "la"]
    assert found.dropped_messages == len(request.messages) - len(found.request.messages)
    assert size(found.request) <= 1000 < size(found.request) + 10 + 102


def test_a_text_that_is_most_of_the_prompt_is_cut_before_any_turn_goes():
    request = ask(say("system", "s"), say("user", "<" + "x" * 100_000 + ">"), *talk(2)[1:], say("user", "why?"))
    found = compress(request, within(20_000))
    assert found is not None
    assert (found.dropped_messages, found.cut_texts) == (0, 1)
    text = str(found.request.messages[1].content)
    assert text.startswith("<x")
    assert text.endswith("x>")
    assert "characters left out here ...]" in text
    assert 19_900 < size(found.request) <= 20_000


def test_the_mark_says_how_much_is_gone():
    text = "ab" * 5000
    found = compress(ask(say("user", text)), within(1000))
    assert found is not None
    head, _, rest = str(found.request.messages[0].content).partition("\n\n[... ")
    number, _, tail = rest.partition(" characters left out here ...]\n\n")
    assert text == head + text[len(head) : len(head) + int(number)] + tail


def test_the_last_words_are_cut_when_nothing_else_is_left_and_instructions_last_of_all():
    request = ask(say("system", "s" * 3000), *talk(3), say("user", "u" * 3000))
    found = compress(request, within(4000))
    assert found is not None
    assert (found.dropped_messages, found.cut_texts) == (0, 1)  # its own history would not have been enough
    found = compress(request, within(3500))
    assert found is not None
    assert found.request.messages[0].content == "s" * 3000
    assert [message.role for message in found.request.messages] == ["system", "user"]
    found = compress(request, within(900))
    assert found is not None
    assert (found.dropped_messages, found.cut_texts) == (6, 2)
    assert compress(request, within(2 * TEXT_MIN_CHARS)) is None


def test_what_the_model_is_to_go_on_from_and_what_tools_were_told_is_never_cut():
    prefill = say("assistant", "p" * 5000, prefix=True)
    found = compress(ask(say("user", "u" * 5000), prefill), within(6000))
    assert found is not None
    assert found.request.messages[-1] == prefill
    assert compress(ask(say("user", "u"), prefill), within(1000)) is None
    call = ToolCall(id="c", function=FunctionCall(name="f", arguments="x" * 5000))
    request = ask(say("user", "u"), say("assistant", "", tool_calls=(call,)), say("tool", "r", tool_call_id="c"))
    assert compress(request, within(1000)) is None


def test_parts_are_cut_and_pictures_stay():
    parts = (
        Part(type="text", text="t" * 5000),
        Part(type="image_url", image_url="data:..."),
        Part(type="text", text="?"),
    )
    found = compress(ask(Message(role="user", content=parts)), within(1000))
    assert found is not None
    (message,) = found.request.messages
    assert isinstance(message.content, tuple)
    assert message.content[1:] == parts[1:]
    assert len(message.content[0].text or "") < 1000


def test_a_call_goes_with_its_result_wherever_that_stands():
    def call(*ids: str) -> Message:
        return say("assistant", "", tool_calls=tuple(ToolCall(id=one, function=FunctionCall(name="f")) for one in ids))

    request = ask(
        say("user", "a" * 50),
        call("1", "2"),
        say("user", "wait"),
        say("tool", "r" * 300, tool_call_id="2"),
        say("tool", "r" * 10, tool_call_id="1"),
        say("assistant", "b" * 50),
        # The same ids again, as small servers number them.
        call("1"),
        say("tool", "q" * 10, tool_call_id="1"),
        say("user", "end"),
    )
    found = compress(request, within(250))
    assert found is not None
    assert [request.messages.index(message) for message in found.request.messages] == [0, 6, 7, 8]


def test_too_many_messages_are_cut_to_as_many_as_are_taken():
    request = ask(say("system", "s"), *talk(600, 0), say("user", "u"))
    found = compress(request, lambda _: True, messages_max=1000)
    assert found is not None
    assert len(found.request.messages) == 1000
    assert found.request.messages[:2] == request.messages[:2]
    assert found.request.messages[-2:] == request.messages[-2:]


def test_members_that_nobody_knows_stay_with_their_message():
    body = (
        b'{"model":"m","top":1,"messages":[{"role":"user","content":"%b","x":0},{"role":"assistant","content":"%b",'
        b'"x":1},{"role":"user","content":"u","x":2}]}' % (b"a" * 500, b"b" * 500)
    )
    found = compress(decode_chat(body), within(600))
    assert found is not None
    assert found.request.extra == {"top": 1, "messages": {"0": {"x": 0}, "1": {"x": 2}}}


roles = st.sampled_from(["system", "user", "assistant", "tool", "call"])


@st.composite
def conversations(draw: st.DrawFn) -> ChatRequest:
    messages: list[Message] = []
    for number, role in enumerate(draw(st.lists(roles, min_size=1, max_size=30))):
        text = chr(97 + number % 26) * draw(st.sampled_from([0, 1, 40, 400, 4000]))
        if role == "call":
            call = ToolCall(id=f"c{draw(st.integers(0, 3))}", function=FunctionCall(name="f"))
            messages.append(say("assistant", text, tool_calls=(call,)))
        elif role == "tool":
            messages.append(say("tool", text, tool_call_id=f"c{draw(st.integers(0, 3))}"))
        else:
            messages.append(say(role, text))
    return ask(*messages)


def answered(messages: tuple[Message, ...]) -> list[tuple[str, bool]]:
    """For each result, whether a call before it asked for it; for each call, whether a result came."""
    open_calls: set[str] = set()
    found: list[tuple[str, bool]] = []
    for message in messages:
        open_calls |= {call.id for call in message.tool_calls or ()}
        if message.tool_call_id is not None:
            found.append((message.tool_call_id, message.tool_call_id in open_calls))
    return found


@settings(max_examples=300)
@given(conversations(), st.integers(0, 20_000), st.integers(1, 31))
def test_the_result_fits_and_keeps_what_matters_or_there_is_none(request: ChatRequest, limit: int, most: int):
    found = compress(request, within(limit), messages_max=most)
    assert found == compress(request, within(limit), messages_max=most)
    if found is None:
        return
    kept = found.request.messages
    assert size(found.request) <= limit
    assert len(kept) <= most
    assert len(request.messages) - len(kept) == found.dropped_messages
    # In order, and each kept message one of the sent: the same but for its text.
    rest = iter(request.messages)
    assert all(any(_same(one, other) for other in rest) for one in kept)
    for role, place in (("system", 0), ("user", -1)):
        sent = [message for message in request.messages if message.role == role]
        assert not sent or _same([message for message in kept if message.role == role][place], sent[place])
    assert _same(kept[-1], request.messages[-1])
    lost = [pair for pair in answered(kept) if not pair[1]]
    assert len(lost) <= len([pair for pair in answered(request.messages) if not pair[1]])
    if not found.cut_texts and found.dropped_messages == 0:
        assert found.request is request


def _same(one: Message, other: Message) -> bool:
    if (one.role, one.tool_calls, one.tool_call_id) != (other.role, other.tool_calls, other.tool_call_id):
        return False
    return one.content == other.content or "left out here" in str(one.content)


@pytest.mark.parametrize("limit", [0, 100, 1000, 3000, 10_000])
def test_few_questions_are_asked_even_of_a_long_conversation(limit: int):
    asked = 0

    def fits(request: ChatRequest) -> bool:
        nonlocal asked
        asked += 1
        return size(request) <= limit

    compress(ask(say("system", "s" * 2000), *talk(1000), say("user", "u" * 100_000)), fits)
    assert asked <= 80
