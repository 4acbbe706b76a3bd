import asyncio
import json

import pytest

from gateway.attempts import Limits
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import chunk, completion, fails, fake_provider, hangs, resets, says, stream_chunks, streams

RETRYABLE = {
    "500": fails(500),
    "503": fails(503),
    "529": fails(529),
    "429": fails(429, headers={"retry-after": "30"}),
    "401": fails(401),
    "404": fails(404),
    "html page with 502": fails(502, "<html>bad gateway</html>"),
    "html page with 200": fails(200, "<html>maintenance</html>"),
    "error inside a 200": fails(200, {"error": {"message": "out of luck", "code": 502}}),
    "nothing inside a 200": fails(200, {}),
    "reset": resets(),
    "redirect": fails(302, {}, {"location": "http://127.0.0.1:1/"}),
}
HICCUPS = {"500", "html page with 502", "error inside a 200", "reset"}
"""After these the same one is asked once more, a moment later."""
TRUNCATED = {
    "before anything": streams(cut=True),
    "after the role": streams(chunk({"role": "assistant", "content": ""}), cut=True),
    "clean end without content": streams(),
    "error before content": streams(b'data: {"error": {"message": "no", "code": 503}}\n\n'),
}


async def read_stream(client, body):
    """All `data` payloads of a stream, and its text."""
    payloads = []
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                payloads.append(line[6:])
    chunks = [json.loads(payload) for payload in payloads if payload != "[DONE]"]
    text = "".join(choice["delta"].get("content") or "" for parsed in chunks for choice in parsed.get("choices", ()))
    return payloads, chunks, text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", RETRYABLE)
async def test_the_next_endpoint_answers_when_the_first_fails(tmp_path, failure, stream):
    tries = 2 if failure in HICCUPS else 1
    async with fake_provider(RETRYABLE[failure]) as bad, fake_provider(says("The good one.")) as good:
        async with running_gateway(openai_config(bad.base_url, good.base_url), tmp_path) as running:
            if stream:
                payloads, _, text = await read_stream(running.client, chat(stream=True))
                assert (text, payloads[-1]) == ("The good one.", "[DONE]")
            else:
                response = await running.client.post("/v1/chat/completions", json=chat())
                assert response.status_code == 200, response.text
                assert response.json()["choices"][0]["message"]["content"] == "The good one."
                assert response.json()["provider"] == "p1"
                assert response.headers["x-mixgate-attempts"] == str(tries + 1)
    assert (len(bad.requests), len(good.requests)) == (tries, 1)
    assert bad.billed_pusd == 0 < good.billed_pusd


@pytest.mark.parametrize("reply", TRUNCATED.values(), ids=TRUNCATED)
async def test_a_stream_that_breaks_before_content_is_answered_by_the_next(tmp_path, reply):
    async with fake_provider(reply) as bad, fake_provider(says("Whole answer.")) as good:
        async with running_gateway(openai_config(bad.base_url, good.base_url), tmp_path) as running:
            _, chunks, text = await read_stream(running.client, chat(stream=True))
    assert text == "Whole answer."
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize("surface", ["/v1", "/api/v1"])
@pytest.mark.parametrize("cut", [True, False], ids=["reset", "clean end"])
@pytest.mark.parametrize("after", [1, 2, 5])
async def test_a_stream_cut_after_content_that_nobody_may_go_on_with_ends_with_an_error(tmp_path, after, cut, surface):
    parts = stream_chunks("one two three four five six", usage=False, finish_reason=None)[: after + 1]
    async with fake_provider(streams(*parts, 0.1, cut=cut)) as bad, fake_provider() as good:
        async with running_gateway(openai_config(bad.base_url, good.base_url, rescue=False), tmp_path) as running:
            payloads = []
            async with running.client.stream("POST", f"{surface}/chat/completions", json=chat(stream=True)) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        payloads.append(line[6:])
    assert payloads[-1] == "[DONE]"
    last = json.loads(payloads[-2])
    if surface == "/v1":
        assert last["error"]["code"] == "answer_truncated"
        assert last["error"]["source"] == "provider"
        assert "choices" not in last
    else:
        assert last["error"]["code"] == 502
        assert last["choices"][0]["finish_reason"] == "error"
    finished = [json.loads(payload) for payload in payloads[:-2]]
    assert all(choice["finish_reason"] is None for parsed in finished for choice in parsed["choices"])
    assert good.requests == []


async def test_one_unreadable_chunk_is_skipped_and_said(tmp_path):
    parts = stream_chunks("a b c")
    parts.insert(2, b"data: {broken\n\n")
    async with fake_provider(streams(*parts)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            body = chat(stream=True, stream_options={"include_usage": True})
            _, chunks, text = await read_stream(running.client, body)
    assert text == "a b c"
    assert chunks[-1]["mixgate"]["skipped_chunks"] == 1


async def test_a_second_unreadable_chunk_is_a_failure(tmp_path):
    parts = [*stream_chunks("a b")[:2], 0.1, b"data: {broken\n\n", b"data: {again\n\n"]
    async with fake_provider(streams(*parts)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            _, chunks, _ = await read_stream(running.client, chat(stream=True))
    assert chunks[-1]["error"]["code"] == "provider_garbled"


async def test_a_missing_end_mark_is_no_failure(tmp_path):
    parts = stream_chunks("all of it")[:-1]
    async with fake_provider(streams(*parts)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            payloads, _, text = await read_stream(running.client, chat(stream=True))
    assert (text, payloads[-1]) == ("all of it", "[DONE]")


async def test_a_silent_provider_is_left_for_the_next(tmp_path):
    limits = Limits(first_token_timeout_s=0.3)
    async with fake_provider(hangs()) as silent, fake_provider(says("Here.")) as good:
        config = openai_config(silent.base_url, good.base_url)
        async with running_gateway(config, tmp_path, limits=limits) as running:
            _, _, text = await read_stream(running.client, chat(stream=True))
            await asyncio.sleep(0.1)
    assert text == "Here."
    assert silent.requests[0].cancelled


async def test_comments_are_not_progress(tmp_path):
    limits = Limits(first_token_timeout_s=0.4)
    comments = [part for _ in range(40) for part in (b": OPENROUTER PROCESSING\n\n", 0.05)]
    async with fake_provider(streams(*comments)) as waiting, fake_provider(says("Here.")) as good:
        config = openai_config(waiting.base_url, good.base_url)
        async with running_gateway(config, tmp_path, limits=limits) as running:
            _, _, text = await read_stream(running.client, chat(stream=True))
    assert text == "Here."


async def test_a_provider_that_stops_talking_is_an_error_in_band(tmp_path):
    limits = Limits(idle_timeout_s=0.3)
    parts = [*stream_chunks("a b c")[:3], 30.0]
    async with fake_provider(streams(*parts)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path, limits=limits) as running:
            _, chunks, text = await read_stream(running.client, chat(stream=True))
    assert text == "a b"
    assert chunks[-1]["error"]["code"] == "provider_stalled"


async def test_a_request_that_is_wrong_everywhere_is_not_shopped_around(tmp_path):
    wrong = fails(
        400, {"error": {"message": "bad tool", "type": "invalid_request_error", "param": "tools", "code": None}}
    )
    async with fake_provider(wrong) as first, fake_provider() as second:
        async with running_gateway(openai_config(first.base_url, second.base_url), tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat())
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", "tools")
    assert error["message"] == "bad tool"
    assert second.requests == []


async def test_when_all_fail_the_most_useful_error_is_told_with_every_attempt(tmp_path):
    replies = (fails(500, {"error": {"message": "secret trace"}}), fails(429, headers={"retry-after": "7"}), resets())
    async with fake_provider(replies[0]) as a, fake_provider(replies[1]) as b, fake_provider(replies[2]) as c:
        config = openai_config(a.base_url, b.base_url, c.base_url)
        async with running_gateway(config, tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat())
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["source"]) == (429, "rate_limited", "provider")
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-should-retry"] == "true"
    codes = [attempt["code"] for attempt in error["attempts"]]
    assert codes == ["provider_error", "provider_error", "rate_limited", "connection_reset", "connection_reset"]
    assert "secret trace" not in response.text


async def test_a_client_that_leaves_cancels_its_attempt(tmp_path):
    async with fake_provider(hangs()) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            for stream in (True, False):
                leaving = asyncio.create_task(running.client.post("/v1/chat/completions", json=chat(stream=stream)))
                await asyncio.sleep(0.3)
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
                await asyncio.sleep(0.3)
    assert [seen.cancelled for seen in provider.requests] == [True, True]


async def test_a_whole_answer_to_a_streamed_question_is_streamed(tmp_path):
    async def whole(request, seen):
        return await fails(200, completion("All at once."))(request, seen)

    async with fake_provider(whole) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            payloads, _, text = await read_stream(running.client, chat(stream=True))
    assert (text, payloads[-1]) == ("All at once.", "[DONE]")


async def test_unknown_members_reach_a_tolerant_server_and_ours_do_not(tmp_path):
    async with fake_provider() as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            body = chat(top_k=3, guided_choice=["a", "b"], provider={"order": ["p0"]}, models=["m"], route="fallback")
            body["messages"][0]["cache_hint"] = {"ttl": 5}
            response = await running.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    sent = provider.requests[0].body
    assert sent["guided_choice"] == ["a", "b"]
    assert sent["messages"][0] == {"role": "user", "content": "hi", "cache_hint": {"ttl": 5}}
    assert (sent["model"], sent["top_k"]) == ("up", 3)
    assert not {"provider", "models", "route", "stream", "extra"} & set(sent)


async def test_a_member_with_a_line_break_in_its_name_cannot_reach_a_header(tmp_path):
    async with fake_provider() as provider:
        config = openai_config(provider.base_url).replace("dialect: openai", "dialect: mistral")
        async with running_gateway(config, tmp_path, {"MISTRAL_API_KEY": "provider-key"}) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(**{"a\r\nset-cookie: b": 1}))
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    assert "?" in response.headers["x-mixgate-dropped-params"]


@pytest.mark.parametrize("required", [True, False])
async def test_an_endpoint_that_would_drop_a_parameter_is_not_asked_when_all_are_required(tmp_path, required):
    async with fake_provider(says("strict")) as strict, fake_provider(says("tolerant")) as tolerant:
        config = openai_config(strict.base_url, tolerant.base_url).replace("dialect: openai", "dialect: mistral", 1)
        async with running_gateway(config, tmp_path, {"MISTRAL_API_KEY": "provider-key"}) as running:
            body = chat(top_k=5, provider={"require_parameters": required})
            response = await running.client.post("/v1/chat/completions", json=body)
    assert response.json()["choices"][0]["message"]["content"] == ("tolerant" if required else "strict")
    assert response.headers.get("x-mixgate-dropped-params") == (None if required else "top_k")


@pytest.mark.parametrize("ended", [True, False], ids=["with the end mark", "without it"])
async def test_a_stream_of_two_choices_that_stops_after_one_is_cut_unless_it_says_that_this_was_all(tmp_path, ended):
    parts = [chunk({"role": "assistant", "content": "only"}), chunk({}, "stop"), *([b"data: [DONE]\n\n"] * ended)]
    async with fake_provider(streams(*parts)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(stream=True, n=2))
    assert ("answer_truncated" in response.text) is not ended


async def test_choices_that_end_in_the_middle_of_each_other_are_all_complete(tmp_path):
    together = b"".join(
        [chunk({"content": "a"}), chunk({}, "stop"), chunk({"content": "b"}, index=1), chunk({"content": "c"}, index=1)]
    )
    async with fake_provider(streams(together, 0.1, chunk({}, "stop", index=1))) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(stream=True, n=2))
    assert "error" not in response.text
    assert response.text.count('"finish_reason":"stop"') == 2
