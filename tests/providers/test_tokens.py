import asyncio
import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.messages import ChatRequest, Function, FunctionCall, Message, Part, Tool, ToolCall
from providers.mixtral_tokenizer import PIECE_CHARS, VOCABULARIES, load_tokenizer, pieces
from providers.tokens import (
    Correction,
    bound_text,
    estimate_request,
    estimate_text,
    guess_by_size,
    most_by_size,
    plain_size,
)

ROOT = Path(__file__).resolve().parents[2]
TEXTS = Path(__file__).with_name("texts")
ENGLISH, FRENCH, CHINESE = ((TEXTS / f"{name}.txt").read_text() for name in ("english", "french", "chinese"))
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "providers").glob("*.py")))
SAMPLES = {"English": ENGLISH, "French": FRENCH, "Chinese": CHINESE, "code": CODE}


@pytest.fixture(scope="module", params=sorted(VOCABULARIES))
def tokenizer(request):
    loaded = load_tokenizer(request.param)
    if loaded is None:
        pytest.skip("the `tokens` extra (mistral-common, sentencepiece) is not installed")
    return loaded


@pytest.mark.parametrize("name", SAMPLES)
def test_the_estimate_is_within_0_9_and_1_5_of_the_truth(tokenizer, name):
    text = SAMPLES[name]
    counted = tokenizer._count_text(text)
    assert 0.9 * counted <= estimate_text(text) <= 1.5 * counted
    assert counted <= bound_text(text) + 1


@given(st.lists(st.text(st.characters(max_codepoint=127)), min_size=1, max_size=4))
def test_no_estimate_of_ascii_is_above_what_its_size_allows(texts):
    request = ChatRequest(messages=tuple(Message(role="user", content=text) for text in texts))
    assert estimate_request(request) <= most_by_size(plain_size(request), len(texts))


def test_the_guess_of_english_is_not_far_from_the_estimate():
    request = ChatRequest(messages=(Message(role="user", content="".join(filter(str.isascii, ENGLISH))),))
    assert guess_by_size(plain_size(request), 1) == pytest.approx(estimate_request(request), rel=0.1)


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest(messages=(Message(role="user", content="\u00e9"),)),
        ChatRequest(messages=(Message(role="user", content=(Part(type="text", text="a"),)),)),
        ChatRequest(messages=(Message(role="assistant", content=None, tool_calls=(ToolCall(id="1"),)),)),
        ChatRequest(messages=(Message(role="user", content="a"),), tools=(Tool(function=Function(name="f")),)),
    ],
)
def test_only_ascii_text_alone_has_a_plain_size(request_):
    assert plain_size(request_) is None


def test_pieces_encode_to_the_same_count_as_the_whole(tokenizer):
    random.seed(4)
    for text in (*SAMPLES.values(), CODE.replace(" ", "  "), ENGLISH.replace(" ", "\n"), "x" * 20_000, " " * 9000):
        for _ in range(3):
            start = random.randrange(max(1, len(text) - 3 * PIECE_CHARS))
            sample = text[start : start + 3 * PIECE_CHARS].strip()
            whole = tokenizer._count_text.__closure__[0].cell_contents.encode(sample)
            assert tokenizer._count_text(sample) == len(whole)
    assert len(list(pieces(ENGLISH * 50))) > 10


def conversations(count: int, *, tools: bool):
    """Conversations of every shape that the reference encoder takes."""
    random.seed(11)
    words = (ENGLISH + FRENCH + CHINESE + CODE).split()

    def text() -> str:
        return " ".join(random.choices(words, k=random.randrange(1, 60)))

    for _ in range(count):
        messages = []
        if random.random() < 0.5:
            messages.append({"role": "system", "content": text()})
        for _ in range(random.randrange(4)):
            messages += [{"role": "user", "content": text()}] * random.choice((1, 1, 2))
            if tools and random.random() < 0.5:
                called = "".join(random.choices("abcdefghiABCDEFGHI012345", k=9))
                arguments = json.dumps({"city": text()}, ensure_ascii=False)
                call = {"id": called, "type": "function", "function": {"name": "weather", "arguments": arguments}}
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
                messages.append({"role": "tool", "tool_call_id": called, "name": "weather", "content": text()})
            messages.append({"role": "assistant", "content": text()})
        parts = [{"type": "text", "text": text()}, {"type": "text", "text": text()}]
        messages.append({"role": "user", "content": random.choice((text(), parts))})
        offered = None
        if tools and random.random() < 0.6:
            schema = {"type": "object", "properties": {"city": {"type": "string", "description": text()}}}
            function = {"name": "weather", "description": text(), "parameters": schema}
            offered = [{"type": "function", "function": function}]
        yield messages, offered


def ours(messages, tools) -> ChatRequest:
    def message(given) -> Message:
        content = given["content"]
        if isinstance(content, list):
            content = tuple(Part(**part) for part in content)
        calls = tuple(
            ToolCall(id=call["id"], function=FunctionCall(**call["function"])) for call in given.get("tool_calls", ())
        )
        return Message(
            role=given["role"], content=content, tool_calls=calls or None, tool_call_id=given.get("tool_call_id")
        )

    offered = tuple(Tool(function=Function(**tool["function"])) for tool in tools or ())
    return ChatRequest(messages=tuple(map(message, messages)), tools=offered or None)


def test_the_exact_count_is_that_of_the_reference_encoder(tokenizer, recwarn):
    reference = pytest.importorskip("mistral_common.tokens.tokenizers.mistral").MistralTokenizer
    request_type = pytest.importorskip("mistral_common.protocol.instruct.request").ChatCompletionRequest
    encoder = getattr(reference, tokenizer.template)()
    for messages, tools in conversations(500, tools=tokenizer.template == "v3"):
        expected = encoder.encode_chat_completion(request_type.from_openai(messages=messages, tools=tools)).tokens
        request = ours(messages, tools)
        assert tokenizer.count(request) == len(expected), messages
        assert estimate_request(request) >= 0.8 * len(expected)


async def test_a_long_prompt_is_counted_beside_the_event_loop(tokenizer):
    request = ChatRequest(messages=(Message(role="user", content=ENGLISH * 115),))
    gaps = []
    done = False

    async def tick() -> None:
        last = time.perf_counter()
        while not done:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    counted = await tokenizer.count_off_loop(request)
    done = True
    await ticking
    assert counted == tokenizer.count(request) > 30_000
    assert len(gaps) > 5  # the loop ran on meanwhile; how promptly is for bench/


def test_a_correction_learns_a_models_own_counts_within_bounds():
    correction = Correction()
    for _ in range(200):
        correction = correction.learn(1000, 1300)
    assert correction.apply(1000) == 1300
    assert correction.learn(10, 500) == correction  # too small a prompt to say anything
    wild = Correction()
    for counted in (0, -5, 10**12):
        wild = wild.learn(1000, counted)
    assert wild.ratio <= 2.0
