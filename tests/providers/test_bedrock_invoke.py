"""InvokeModel for Mistral's models: one prompt in their own marks, text back, tokens in headers or the last chunk."""

import json

import msgspec
import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from providers.base import Capabilities, Endpoint
from providers.bedrock_invoke import BedrockInvoke
from providers.errors import GarbledError, RateLimitedError, ServerError, TruncatedError, UnsupportedError
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    TextDelta,
    Usage,
    UsageReported,
)
from tests.fakes.bedrock import chunk, event, exception

MIXTRAL = Endpoint(
    id="bedrock/mixtral",
    provider="bedrock",
    model="m",
    upstream_model="mistral.mixtral-8x7b-instruct-v0:1",
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
    max_output_tokens=4096,
)
HEADERS = {
    "x-amzn-requestid": "r-1",
    "x-amzn-bedrock-input-token-count": "7",
    "x-amzn-bedrock-output-token-count": "5",
}


def encode(*messages, endpoint=MIXTRAL, stream=False, **members):
    listed = [{"role": role, "content": text} for role, text in messages] or [{"role": "user", "content": "hi"}]
    wire = BedrockInvoke().encode(
        msgspec.convert({"messages": listed, **members}, ChatRequest), endpoint, stream=stream
    )
    return wire, json.loads(wire.body)


def decode(*pieces, stream=True):
    decoder = BedrockInvoke().decoder(MIXTRAL, stream=stream, headers=HEADERS)
    return decoder.feed(b"".join(pieces)) + decoder.finish()


TALK = (("system", "Be terse."), ("user", "Hi"), ("assistant", "Hello."), ("user", "a"), ("user", "b"))


def test_a_conversation_is_one_prompt_in_mistrals_marks():
    _, body = encode(*TALK)
    assert body == {
        "prompt": "<s>[INST] Be terse.\n\nHi [/INST] Hello.</s>[INST] a\n\nb [/INST]",
        "max_tokens": 4096,
    }


def test_the_prompt_is_what_mistrals_own_tokenizer_writes():
    _, body = encode(*TALK)
    asked = {"messages": [{"role": role, "content": text} for role, text in TALK]}
    tokenizer = MistralTokenizer.v1()
    tokens = tokenizer.encode_chat_completion(ChatCompletionRequest.model_validate(asked)).tokens
    pieces = tokenizer.decode(tokens, special_token_policy=SpecialTokenPolicy.KEEP)
    theirs = pieces.replace("\u2581", "").replace("<0x0A>", "\n")
    assert theirs == body["prompt"].replace(" ", "")  # one space or none behind its marks


def test_a_beginning_of_the_answer_stays_open_where_it_may_be_gone_on_with():
    able = msgspec.structs.replace(MIXTRAL, capabilities=Capabilities(prefill=True))
    assert encode(("user", "x"), ("assistant", "Once"), endpoint=able)[1]["prompt"] == "<s>[INST] x [/INST] Once"
    with pytest.raises(UnsupportedError):
        encode(("user", "x"), ("assistant", "Once"))


def test_paths_and_parameters():
    wire, body = encode(
        temperature=1.5,
        top_p=0.5,
        top_k=999,
        stop=[str(number) for number in range(12)],
        max_tokens=9,
        seed=1,
        extra={"x": 1},
    )
    assert wire.url == f"{MIXTRAL.base_url}/model/mistral.mixtral-8x7b-instruct-v0%3A1/invoke"
    assert encode(stream=True)[0].url.endswith("/invoke-with-response-stream")
    del body["prompt"]
    stops = [str(number) for number in range(10)]
    assert body == {"max_tokens": 9, "temperature": 1, "top_p": 0.5, "top_k": 200, "stop": stops}
    assert {(note.param, note.action) for note in wire.adapted} == {
        ("temperature", "clamped"),
        ("top_k", "clamped"),
        ("stop", "clamped"),
        ("seed", "dropped"),
        ("x", "dropped"),
    }


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
    ],
)
def test_what_it_has_no_words_for_is_refused(members):
    with pytest.raises(UnsupportedError):
        encode(**members)


def test_documents_are_refused():
    part = {"type": "file", "file": {"file_data": "data:text/plain;base64,AAAA"}}
    with pytest.raises(UnsupportedError):
        encode(("user", [part]))


def test_a_whole_answer_has_its_tokens_in_the_headers():
    body = json.dumps({"outputs": [{"text": " Hi.", "stop_reason": "stop"}]}).encode()
    assert decode(body, stream=False) == [
        AnswerStarted("r-1"),
        TextDelta(" Hi."),
        ChoiceFinished("stop", 0, "stop"),
        UsageReported(Usage(input_tokens=7, output_tokens=5)),
    ]


def test_a_stream_has_them_in_its_last_chunk():
    events = decode(chunk(text=" H"), chunk(text="i."), chunk(reason="length", metrics=(9, 3)))
    assert events == [
        AnswerStarted("r-1"),
        TextDelta(" H"),
        TextDelta("i."),
        ChoiceFinished("length", 0, "length"),
        UsageReported(Usage(input_tokens=9, output_tokens=3)),
    ]


def test_an_exception_a_cut_and_garbage_are_failures():
    assert type(decode(chunk(text="x"), exception("throttlingException", "slow"))[-1].error) is RateLimitedError
    assert type(decode(chunk(text="x"))[-1].error) is TruncatedError
    bad = event("chunk", {"bytes": "AAAA"})
    assert type(decode(bad, chunk(text="x"), bad)[-1].error) is GarbledError
    assert type(decode(chunk(text="x"), b"\0" * 40)[-1].error) is GarbledError
    assert type(decode(b"<html>", stream=False)[-1].error) is GarbledError
    assert type(decode(b"{}", stream=False)[-1].error) is ServerError


def test_what_breaks_behind_the_end_takes_nothing_back():
    for rest in (exception("internalServerException", "x"), b"\0" * 40, chunk(text="more", reason="stop")):
        events = decode(chunk(text="x", reason="stop"), rest)
        assert not any(isinstance(one, AnswerFailed) for one in events)
        assert [one.text for one in events if isinstance(one, TextDelta)] == ["x"]
