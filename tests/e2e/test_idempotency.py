"""`Idempotency-Key` on real sockets: a call is answered once, and its answer given again byte for byte."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import openai
import pytest

from gateway.server.idempotency import KEY_MAX_CHARS
from tests.e2e.test_budgets import ADMIN, bearer, configured, issue
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fails, fake_provider, says

PATH = "/v1/chat/completions"


def named(key):
    return {"idempotency-key": key}


@asynccontextmanager
async def gateway(folder, *replies):
    async with fake_provider(*replies) as provider, running_gateway(openai_config(provider.base_url), folder) as on:
        yield provider, on


def held():
    """A reply that comes when the event is set."""
    event = asyncio.Event()

    async def reply(request, seen):
        await event.wait()
        return await says("Late.")(request, seen)

    return event, reply


async def test_an_answer_is_given_again_byte_for_byte_and_says_so(tmp_path):
    async with gateway(tmp_path, says("once")) as (provider, on):
        first = await on.client.post(PATH, json=chat(), headers=named("a"))
        again = await on.client.post(PATH, json=chat(), headers=named("a"))
        other = await on.client.post(PATH, json=chat(), headers=named("b"))
    assert len(provider.requests) == 2
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["x-generation-id"] == first.headers["x-generation-id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert other.json()["id"] != first.json()["id"]


async def test_the_sdk_sees_the_same_answer(tmp_path):
    async with gateway(tmp_path, says("once")) as (provider, on):
        async with openai.AsyncOpenAI(base_url=f"{on.url}/v1", api_key="none", max_retries=0) as client:
            asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "extra_headers": named("sdk")}
            answers = [await client.chat.completions.create(**asked) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(provider.requests) == 1


async def test_another_body_or_path_under_the_same_key_is_a_422(tmp_path):
    async with gateway(tmp_path, says("once")) as (provider, on):
        await on.client.post(PATH, json=chat(), headers=named("a"))
        other = await on.client.post(PATH, json=chat("else"), headers=named("a"))
        elsewhere = await on.client.post(f"/api{PATH}", json=chat(), headers=named("a"))
    assert (other.status_code, elsewhere.status_code) == (422, 422)
    assert other.json()["error"]["code"] == "idempotency_mismatch"
    assert other.headers["x-should-retry"] == "false"
    assert len(provider.requests) == 1


async def test_the_same_call_at_the_same_time_is_a_409_that_may_be_repeated(tmp_path):
    event, reply = held()
    async with gateway(tmp_path, reply) as (provider, on):
        first = asyncio.create_task(on.client.post(PATH, json=chat(), headers=named("a")))
        while not provider.requests:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        meanwhile = await on.client.post(PATH, json=chat(), headers=named("a"))
        wrong = await on.client.post(PATH, json=chat("else"), headers=named("a"))
        event.set()
        answered = await first
        again = await on.client.post(PATH, json=chat(), headers=named("a"))
    assert (meanwhile.status_code, wrong.status_code) == (409, 422)
    assert meanwhile.json()["error"]["code"] == "idempotency_in_flight"
    assert (meanwhile.headers["x-should-retry"], meanwhile.headers["retry-after"]) == ("true", "1")
    assert again.content == answered.content
    assert len(provider.requests) == 1


async def test_a_client_that_left_finds_its_answer_when_it_comes_back(tmp_path):
    event, reply = held()
    async with gateway(tmp_path, reply) as (provider, on):
        with pytest.raises(httpx.ReadTimeout):
            await on.client.post(PATH, json=chat(), headers=named("a"), timeout=httpx.Timeout(30, read=0.2))
        event.set()
        while (  # noqa: ASYNC110  # nobody tells a client
            again := await on.client.post(PATH, json=chat(), headers=named("a"))
        ).status_code == 409:
            await asyncio.sleep(0.05)  # as a client would
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert len(provider.requests) == 1
    assert not provider.requests[0].cancelled


async def test_an_error_is_not_kept(tmp_path):
    async with fake_provider(fails(400), says("well")) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as on:
            first = await on.client.post(PATH, json=chat(), headers=named("a"))
            again = await on.client.post(PATH, json=chat(), headers=named("a"))
            broken = await on.client.post(
                PATH, content=b"{", headers={**named("c"), "content-type": "application/json"}
            )
    assert (first.status_code, again.status_code, broken.status_code) == (400, 200, 400)
    assert len(provider.requests) == 2


async def test_a_key_that_cannot_be_one_is_a_400(tmp_path):
    senseless = ("", "x" * (KEY_MAX_CHARS + 1), "a\tb", "a\x7fb")
    async with gateway(tmp_path) as (provider, on):
        answers = [await on.client.post(PATH, json=chat(), headers=named(key)) for key in senseless]
        longest = await on.client.post(PATH, json=chat(), headers=named("x" * KEY_MAX_CHARS))
    assert [answer.status_code for answer in (*answers, longest)] == [400, 400, 400, 400, 200]
    assert len(provider.requests) == 1


async def test_a_stream_takes_no_notice_of_it_and_says_so(tmp_path):
    async with gateway(tmp_path, says("once")) as (provider, on):
        answers = [await on.client.post(PATH, json=chat(stream=True), headers=named("a")) for _ in range(2)]
    assert [answer.headers["x-mixgate-idempotency"] for answer in answers] == ["ignored: the answer is a stream"] * 2
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert len(provider.requests) == 2


async def test_two_tenants_have_nothing_in_common(tmp_path):
    async with fake_provider(says("once")) as provider:
        async with running_gateway(configured(provider.base_url), tmp_path, {"ADMIN": ADMIN}) as on:
            limits = {"requests_per_min": 10}
            keys = [(await issue(on, name, mixgate=limits))[0] for name in ("one", "two")]
            answers = [
                await on.client.post(PATH, json=chat(), headers={**named("a"), **bearer(key)}) for key in (*keys, *keys)
            ]
            nobody = await on.client.post(PATH, json=chat(), headers={**named("a"), **bearer("mg-none")})
    assert nobody.status_code == 401
    told = [one.headers.get("x-ratelimit-remaining-requests") for one in answers]
    assert told == ["9", "9", None, None], "what is given again is not counted, and says nothing of that moment"
    assert len(provider.requests) == 2
    assert answers[0].content == answers[2].content != answers[1].content == answers[3].content


async def test_a_call_is_let_in_before_its_body_is_taken(tmp_path):
    """Else one key could have the gateway hold as many bodies as there are connections."""
    config = "gateway: {client_keys: [env:CLIENT], in_flight_per_key_max: 1}\n" + openai_config("http://127.0.0.1:9")
    async with running_gateway(config, tmp_path, {"CLIENT": "a-client-key"}) as on:
        writers, answers = [], []
        for number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", on.client.base_url.port)
            writer.write(
                f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer a-client-key\r\n"
                f"content-type: application/json\r\nidempotency-key: {number}\r\ncontent-length: 1000\r\n\r\n".encode()
            )
            writers.append(writer)
            answers.append(asyncio.create_task(reader.readline()))
        async with asyncio.timeout(10.0):
            waiting = set(answers)
            while len(waiting) > 1:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for writer in writers:
            writer.close()
        lines = await asyncio.gather(*answers)
    assert sorted(b" 429 " in line for line in lines) == [False, True, True]
