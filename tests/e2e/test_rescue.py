"""An answer that was cut in the middle goes on elsewhere, without a lost or repeated character, or ends honestly."""

import json
from contextlib import asynccontextmanager

import msgspec
import pytest

import gateway.app
from local_backend.backend import LocalBackend
from tests.fakes.duo import CAPABILITIES, PREFILLING, Place, fan_config, shortened, stage
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import STORY, TEXT, chunk, fails, scripted, story, streams, tells

ASK = chat("Tell it.", stream=True, stream_options={"include_usage": True})
LONG = story(201)
CUTS = range(1, 201) if FULL else (1, 2, 3, 5, 8, 9, 10, 14, 15, 20, 37, 50, 64, 99, 100, 128, 150, 180, 199, 200)
KEYS = {"MISTRAL_API_KEY": "provider-key-of-the-test"}


class LocalStory(LocalBackend):
    """The worker's side of the local protocol, telling the long story; goes on from a prefill as a worker does."""

    async def start(self):
        self.asked = []

    def models(self):
        return tuple(msgspec.structs.replace(one, state="ready", can_serve=True) for one in super().models())

    async def send(self, request, **_):
        body = json.loads(request.body)
        self.asked.append(body)
        assert body["prefill"] is True
        said = body["messages"][-1]
        assert said["role"] == "assistant"
        assert "".join(LONG).startswith(said["content"])
        rest = "".join(LONG)[len(said["content"]) :]
        lines = [{"t": "text", "choice": 0, "text": letter} for letter in rest]
        lines.append({"t": "finish", "choice": 0, "reason": "stop"})
        lines.append({"t": "usage", "input_tokens": 9, "output_tokens": len(rest), "cached_input_tokens": 0})
        return Lines([msgspec.json.encode(line) + b"\n" for line in lines])


class Lines:
    """An answer of the worker."""

    def __init__(self, lines):
        self.status = 200
        self.headers = {"content-type": "application/jsonl"}
        self.body = None
        self._lines = lines

    async def read(self):
        return self._lines.pop(0) if self._lines else b""

    def close(self, **_):
        self._lines.clear()


@asynccontextmanager
async def cut_everywhere(folder, good, *, route="policy: ordered", more=""):
    """A gateway in which the Route `cut17` is cut after 17 tokens, and a good provider goes on."""
    async with scripted(tells()) as bad:
        names = {f"cut{k}": f"http://127.0.0.1:{bad.port}/cut{k}/v1" for k in CUTS}
        for k in CUTS:
            bad.by_path[f"/cut{k}/v1/chat/completions"] = tells(tokens=LONG, stop_after=k, how=("reset", "end")[k % 2])
        config = fan_config(names, good, route=route, more=more)
        async with running_gateway(config, folder, KEYS, limits=shortened()) as running:
            yield running, bad


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
async def test_a_prefill_goes_on_exactly_after_any_number_of_tokens(tmp_path, dialect):
    async with scripted(tells(tokens=LONG, prefill=dialect)) as good:
        key = "api_key: env:MISTRAL_API_KEY" if dialect == "mistral" else ""
        place = Place(good.base_url, dialect=dialect, capabilities=PREFILLING, more=key)
        async with cut_everywhere(tmp_path, place) as (running, _):
            for k in CUTS:
                told = await listen(running.client, {**ASK, "model": f"cut{k}"})
                assert told.complete, (k, told.payloads[-3:])
                assert told.text == "".join(LONG), k
                assert told.notes["rescued"]["by"] == "prefill", k
                # A blank before the cut is said twice: a prefill may not end with one.
                assert 0.9 * len(LONG) <= told.usage["completion_tokens"] <= len(LONG) + 1, k
        assert good.wrong_prefixes == []
        assert all(0 <= k - (len(LONG) - call.output_tokens) <= 1 for k, call in zip(CUTS, good.calls, strict=True))
        if dialect == "mistral":
            assert all(call.body["messages"][-1]["prefix"] is True for call in good.calls)


async def test_the_local_worker_goes_on_exactly_after_any_number_of_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway.app, "LocalBackend", LocalStory)
    place = Place("", dialect="local", serves="tiny", capabilities=("system", "prefill"))
    async with cut_everywhere(tmp_path, place, more="        file: story.gguf") as (running, _):
        for k in CUTS:
            told = await listen(running.client, {**ASK, "model": f"cut{k}"})
            assert told.complete, (k, told.payloads[-3:])
            assert told.text == "".join(LONG), k
            assert told.notes["rescued"]["continued"] == "good/up"


async def test_asking_again_drops_exactly_what_was_delivered(tmp_path):
    async with scripted(tells(tokens=LONG, prefill="refused")) as good:
        async with cut_everywhere(tmp_path, Place(good.base_url)) as (running, _):
            for k in CUTS:
                told = await listen(running.client, {**ASK, "model": f"cut{k}"})
                assert told.complete, (k, told.payloads[-3:])
                assert told.text == "".join(LONG), k
                assert told.notes["rescued"]["by"] == "again", k
        assert all(call.body["messages"] == ASK["messages"] for call in good.calls)


async def test_another_text_never_follows_the_first(tmp_path):
    async with scripted() as good:
        diverging = [tells(tokens=(*LONG[: max(0, k - 1)], "~ something else.")) for k in CUTS]
        good.scripts = diverging
        async with cut_everywhere(tmp_path, Place(good.base_url)) as (running, _):
            for k in CUTS:
                told = await listen(running.client, {**ASK, "model": f"cut{k}"})
                assert told.error is not None, k
                assert told.text == "".join(LONG[:k]), k
                assert told.finish_reasons == []
        assert len(good.calls) == len(CUTS), "who answers otherwise has not failed, and is asked the next time too"


async def test_a_new_answer_that_ends_before_the_cut_is_another_answer(tmp_path):
    async with stage(tmp_path, tells(stop_after=30), tells(tokens=STORY[:20])) as on:
        told = await listen(on.running.client, ASK)
        assert told.error["code"] == "answer_truncated"
        assert told.text == "".join(STORY[:30])


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALLING = (
    chunk({"role": "assistant", "content": None}),
    chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1, "b"'}}]}),
    0.05,
)
NOT_PLAIN = {
    "a tool call": (CALLING, {"tools": [TOOL]}),
    "text where tools are offered": ((chunk({"role": "assistant", "content": "I will"}), 0.05), {"tools": [TOOL]}),
    "an object": (
        (chunk({"role": "assistant", "content": '{"a": 1, "b"'}), 0.05),
        {"response_format": {"type": "json_object"}},
    ),
    "a schema": (
        (chunk({"role": "assistant", "content": '{"ok": tr'}), 0.05),
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    ),
    "probabilities": ((chunk({"role": "assistant", "content": "One"}), 0.05), {"logprobs": True}),
    "two choices": ((chunk({"role": "assistant", "content": "One"}), 0.05), {"n": 2}),
}


@pytest.mark.parametrize(("parts", "members"), NOT_PLAIN.values(), ids=NOT_PLAIN)
async def test_nothing_but_plain_text_is_gone_on_with(tmp_path, parts, members):
    async with stage(tmp_path, streams(*parts), tells(prefill="openai"), capabilities=PREFILLING) as on:
        told = await listen(on.running.client, {**ASK, **members})
        assert told.error["code"] == "answer_truncated"
        assert on.tries == (1, 0)
        assert told.finish_reasons == []


async def test_a_request_is_rescued_once(tmp_path):
    second = tells(prefill="openai", stop_after=20)
    async with stage(tmp_path, tells(stop_after=20), second, tells(prefill="openai"), capabilities=PREFILLING) as on:
        told = await listen(on.running.client, ASK)
        assert told.error["code"] == "answer_truncated"
        assert told.text == "".join(STORY[:40])
        assert on.tries == (1, 1, 0)


async def test_a_rescuer_that_fails_before_it_goes_on_is_passed_over(tmp_path):
    async with stage(
        tmp_path, tells(stop_after=20), fails(503), tells(prefill="openai"), capabilities=PREFILLING
    ) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == TEXT
        assert on.tries == (1, 1, 1)


async def test_when_nobody_can_go_on_the_client_hears_how_it_broke_off(tmp_path):
    async with stage(tmp_path, tells(stop_after=20), fails(503), capabilities=PREFILLING) as on:
        told = await listen(on.running.client, ASK)
        assert told.text == "".join(STORY[:20])
        assert told.error["code"] == "answer_truncated"
        assert told.error["attempts"][0]["endpoint"] == "p0/up"


@pytest.mark.parametrize("off", ["route", "request"])
async def test_without_rescue_a_cut_answer_ends_with_its_error(tmp_path, off):
    route = "policy: ordered, rescue: false" if off == "route" else "policy: ordered"
    members = {"provider": {"allow_fallbacks": False}} if off == "request" else {}
    async with stage(
        tmp_path, tells(stop_after=40), tells(prefill="openai"), capabilities=PREFILLING, route=route
    ) as on:
        told = await listen(on.running.client, {**ASK, **members})
        assert told.text == "".join(STORY[:40])
        assert told.error["code"] == "answer_truncated"
        assert on.tries == (1, 0)


async def test_the_rest_counts_towards_the_limit_that_was_asked(tmp_path):
    async with stage(tmp_path, tells(stop_after=40), tells(prefill="openai"), capabilities=PREFILLING) as on:
        told = await listen(on.running.client, {**ASK, "max_tokens": 100})
        assert told.text == TEXT
        first, second = (one.calls[0].body["max_tokens"] for one in on.providers)
        assert first == 100
        assert 60 <= second < 75


async def test_a_conversation_that_ends_in_the_clients_own_prefill_goes_on_from_both(tmp_path):
    messages = [{"role": "user", "content": "Tell it."}, {"role": "assistant", "content": "".join(STORY[:5])}]
    async with stage(
        tmp_path, tells(prefill="openai", stop_after=20), tells(prefill="openai"), capabilities=PREFILLING
    ) as on:
        told = await listen(on.running.client, {**ASK, "messages": messages})
        assert told.complete
        assert told.text == "".join(STORY[5:])
        assert on.providers[1].wrong_prefixes == []
        assert [message["role"] for message in on.providers[1].calls[0].body["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("words", ["Assistant response prefill is incompatible with enable_thinking.", "no such thing"])
async def test_a_400_to_a_prefill_is_never_the_clients(tmp_path, words):
    async def refusing(talk):
        if talk.call.body["messages"][-1]["role"] == "assistant":
            await fails(400, {"error": {"code": 400, "message": words, "type": "invalid_request_error"}})(talk)
        else:
            await tells()(talk)

    async with stage(tmp_path, tells(stop_after=40), refusing, capabilities=PREFILLING) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == TEXT
        assert on.tries == (1, 2)


@pytest.mark.parametrize("capabilities", [CAPABILITIES, PREFILLING], ids=["again", "prefill"])
async def test_a_cut_behind_the_last_token_only_fetches_the_end(tmp_path, capabilities):
    second = tells(prefill="openai")
    async with stage(tmp_path, tells(stop_after=len(STORY)), second, capabilities=capabilities) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == TEXT
        assert told.finish_reasons == ["stop"]
