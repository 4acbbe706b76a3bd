"""Answers given again, on real sockets: what is kept, for whom, for how long, and what it costs."""

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager

import openai
import pytest

from gateway.cache.storage import store_savings
from gateway.explain.record import decode
from gateway.explain.words import outcome_of
from gateway.state.cache_rows import read_cache_rows
from gateway.state.reader import Reader
from tests.e2e.test_budgets import ADMIN, bearer, configured, issue
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import chunk, completion, fails, fake_provider, says, stream_chunks, streams

PATH = "/v1/chat/completions"
ON = {"x-openrouter-cache": "true"}
COST_USD = "0.000013"
"""Of an answer of three words: 7 tokens in for 1, 3 out for 2 USD per million."""
COST_NUSD = 13_000
THREE = "Hello you two."


@asynccontextmanager
async def gateway(folder, *replies, config=openai_config, **settings):
    async with fake_provider(*replies) as provider:
        async with running_gateway(config(provider.base_url), folder, **settings) as on:
            yield provider, on


async def ask(on, text="hi", headers=ON, path=PATH, **members):
    return await on.client.post(path, json=chat(text, **members), headers=headers)


def status(answer):
    return answer.headers.get("x-openrouter-cache-status")


def told(answer):
    """Text, finish reasons and usage of a whole answer or a stream."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        body = answer.json()
        choices = body["choices"]
        return (
            {one["index"]: one["message"]["content"] for one in choices},
            {one["index"]: one["finish_reason"] for one in choices},
            body["usage"],
        )
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    texts, ends, usage = {}, {}, None
    for event in events:
        usage = event.get("usage") or usage
        for one in event["choices"]:
            texts[one["index"]] = texts.get(one["index"], "") + (one["delta"].get("content") or "")
            ends |= {one["index"]: one["finish_reason"]} if one["finish_reason"] else {}
    assert answer.text.endswith("data: [DONE]\n\n")
    return texts, ends, usage


def free(usage):
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cost")} == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "cost": 0,
    }


@pytest.mark.parametrize("path", [PATH, f"/api{PATH}"])
async def test_an_answer_is_given_again_whole_or_as_a_stream_for_nothing(tmp_path, path):
    async with gateway(tmp_path, says(THREE)) as (provider, on):
        for place, (first, second) in enumerate(((False, False), (False, True), (True, False), (True, True))):
            shapes = [
                {"stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
                for stream in (first, second)
            ]
            miss, hit = [await ask(on, f"case {place}", path=path, **shape) for shape in shapes]
            assert len(provider.requests) == place + 1
            check_given_again(miss, hit)


def check_given_again(miss, hit):
    assert (status(miss), status(hit)) == ("MISS", "HIT")
    assert told(miss)[:2] == told(hit)[:2] == ({0: THREE}, {0: "stop"})
    assert str(told(miss)[2]["cost"]) in {COST_USD, "1.3e-05"}
    assert free(told(hit)[2])
    said = {name: hit.headers[f"x-openrouter-cache-{name}"] for name in ("age", "ttl", "source-id")}
    assert said["source-id"] == miss.headers["x-generation-id"] != hit.headers["x-generation-id"]
    assert (said["ttl"], miss.headers["x-openrouter-cache-ttl"]) == ("300", "300")
    assert 0 <= int(said["age"]) < 60
    assert hit.headers["x-mixgate-saved"] == COST_USD
    assert (hit.headers["x-mixgate-attempts"], miss.headers["x-mixgate-attempts"]) == ("0", "1")


async def test_the_sdk_reads_it_as_any_other_answer(tmp_path):
    async with gateway(tmp_path, says(THREE)) as (provider, on):
        async with openai.AsyncOpenAI(base_url=f"{on.url}/v1", api_key="none", default_headers=ON) as client:
            asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            first = await client.chat.completions.create(**asked)
            again = await client.chat.completions.create(**asked)
            chunks = [one async for one in await client.chat.completions.create(**asked, stream=True)]
    assert len(provider.requests) == 1
    assert first.choices == again.choices
    assert first.id != again.id
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == THREE


async def test_an_account_of_the_routing_is_given_with_the_first_alone(tmp_path):
    headers = ON | {"x-openrouter-metadata": "enabled"}
    async with gateway(tmp_path, says(THREE)) as (_, on):
        answers = [await ask(on, headers=headers) for _ in range(2)]
        streamed = await ask(on, headers=headers, stream=True)
    assert [status(one) for one in (*answers, streamed)] == ["MISS", "HIT", "HIT"]
    assert answers[0].json()["openrouter_metadata"]["endpoints"]["available"][0]["selected"] is True
    assert "openrouter_metadata" not in answers[1].json()
    assert "openrouter_metadata" not in streamed.text


async def test_nothing_is_given_again_unless_somebody_wants_it(tmp_path):
    async with gateway(tmp_path, says(THREE)) as (provider, on):
        answers = [await ask(on, headers={}), await ask(on, headers={"x-openrouter-cache": "false"}), await ask(on)]
        answers.append(await ask(on, headers={}))
    assert [status(one) for one in answers] == [None, None, "MISS", None]
    assert len(provider.requests) == 4


async def test_a_route_may_want_it_for_all_and_a_client_may_not(tmp_path):
    def config(url):
        return openai_config(url).replace("{policy: ordered", "{cache: {ttl_s: 7}, policy: ordered")

    async with gateway(tmp_path, says(THREE), config=config) as (provider, on):
        answers = [await ask(on, headers={}), await ask(on, headers={})]
        answers.append(await ask(on, headers={"x-openrouter-cache": "false"}))
        answers.append(await ask(on, headers={"x-openrouter-cache-clear": "true", "x-openrouter-cache-ttl": "9"}))
    assert [status(one) for one in answers] == ["MISS", "HIT", None, "MISS"]
    assert [one.headers.get("x-openrouter-cache-ttl") for one in answers] == ["7", "7", None, "9"]
    assert len(provider.requests) == 3


async def test_a_header_that_makes_no_sense_is_a_400_that_names_it(tmp_path):
    senseless = (
        {"x-openrouter-cache": "maybe"},
        ON | {"x-openrouter-cache-ttl": "0"},
        ON | {"x-openrouter-cache-ttl": "86401"},
        ON | {"x-openrouter-cache-ttl": "soon"},
        ON | {"x-openrouter-cache-clear": "perhaps"},
    )
    async with gateway(tmp_path) as (provider, on):
        answers = [await ask(on, headers=headers) for headers in senseless]
    assert [one.status_code for one in answers] == [400] * len(senseless)
    assert [one.json()["error"]["param"] for one in answers] == [list(headers)[-1] for headers in senseless]
    assert not provider.requests


async def test_it_is_forgotten_after_its_time_and_replaced_where_that_is_wanted(tmp_path):
    async with gateway(tmp_path, says("one"), says("two"), says("three")) as (_, on):
        reuse = on.gateway.application._reuse
        await ask(on, headers=ON | {"x-openrouter-cache-ttl": "100"})
        reuse._unix_time_s = lambda: time.time() + 99
        near = await ask(on)
        reuse._unix_time_s = lambda: time.time() + 101
        over = await ask(on)
        reuse._unix_time_s = time.time
        afresh = await ask(on, headers=ON | {"x-openrouter-cache-clear": "true"})
        after = await ask(on)
    assert [status(one) for one in (near, over, afresh, after)] == ["HIT", "MISS", "MISS", "HIT"]
    assert [told(one)[0][0] for one in (near, over, afresh, after)] == ["one", "two", "three", "three"]
    assert int(near.headers["x-openrouter-cache-age"]) in {98, 99, 100}


async def test_order_and_spacing_of_the_body_make_no_difference_and_content_does(tmp_path):
    one = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":1}'
    same = (
        b'{ "temperature": 1.0,\n "messages": [ {"content": "h\\u0069", "role": "user"} ], "model": "m", "seed": null }'
    )
    other = one.replace(b"hi", b"ho")
    headers = ON | {"content-type": "application/json"}
    async with gateway(tmp_path, says(THREE)) as (provider, on):
        answers = [await on.client.post(PATH, content=body, headers=headers) for body in (one, same, other)]
    assert [status(one) for one in answers] == ["MISS", "HIT", "MISS"]
    assert len(provider.requests) == 2


async def test_another_key_never_gets_it(tmp_path):
    async with gateway(tmp_path, says(THREE), config=configured, env={"ADMIN": ADMIN}) as (provider, on):
        keys = [(await issue(on, name))[0] for name in ("one", "two")]
        answers = [await ask(on, headers=ON | bearer(key)) for key in (*keys, *keys)]
        together = await asyncio.gather(*(ask(on, "at once", headers=ON | bearer(key)) for key in keys * 5))
    assert [status(one) for one in answers] == ["MISS", "MISS", "HIT", "HIT"]
    assert sorted(map(status, together)) == ["HIT"] * 8 + ["MISS"] * 2
    assert len(provider.requests) == 4


async def test_a_key_whose_rights_change_starts_anew(tmp_path):
    async with gateway(tmp_path, says(THREE), config=configured, env={"ADMIN": ADMIN}) as (provider, on):
        key, item = await issue(on)
        assert status(await ask(on, headers=ON | bearer(key))) == "MISS"
        changed = {"mixgate": {"providers": ["elsewhere"]}}
        answer = await on.client.patch(f"/api/v1/keys/{item['hash']}", json=changed, headers=bearer(ADMIN))
        assert answer.status_code == 200
        refused = await ask(on, headers=ON | bearer(key))
    assert refused.status_code != 200
    assert len(provider.requests) == 1


async def test_what_is_no_whole_answer_is_not_kept(tmp_path):
    stream = {"stream": True}
    cases = (
        (fails(400), {}),
        (fails(503), {}),
        (streams(*stream_chunks("one two three", finish_reason=None)[:-2], cut=True), stream),
        (streams(*stream_chunks(THREE, finish_reason="length")), stream),
        (streams(*stream_chunks(THREE, finish_reason="content_filter")), stream),
        (streams(chunk({"content": "one"}), b"data: {no json\n\n", *stream_chunks("two")), stream),
    )
    async with gateway(tmp_path) as (provider, on):
        for place, (reply, members) in enumerate(cases):
            provider.replies[:] = [reply]
            await ask(on, f"case {place}", **members)
            tried = len(provider.requests)
            provider.replies[:] = [says(THREE)]
            on.forget()
            after = await ask(on, f"case {place}", **members)
            again = await ask(on, f"case {place}", **members)
            assert (status(after), status(again)) == ("MISS", "HIT"), place
            assert len(provider.requests) == tried + 1


async def test_an_answer_as_long_as_the_client_wanted_is_kept(tmp_path):
    reply = streams(*stream_chunks(THREE, finish_reason="length"))
    async with gateway(tmp_path, reply) as (provider, on):
        answers = [await ask(on, stream=True, max_tokens=3) for _ in range(2)]
    assert list(map(status, answers)) == ["MISS", "HIT"]
    assert told(answers[1])[1] == {0: "length"}
    assert len(provider.requests) == 1


async def test_tools_and_several_choices_are_kept(tmp_path):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    body = completion("") | {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
                "finish_reason": "tool_calls",
            },
            {"index": 1, "message": {"role": "assistant", "content": "two"}, "finish_reason": "stop"},
        ]
    }
    members = {"n": 2, "tools": [{"type": "function", "function": {"name": "f"}}]}
    async with gateway(tmp_path, fails(200, body)) as (provider, on):
        answers = [await ask(on, **members) for _ in range(2)]
    assert list(map(status, answers)) == ["MISS", "HIT"]
    assert answers[0].json()["choices"] == answers[1].json()["choices"]
    assert answers[1].json()["choices"][0]["message"]["tool_calls"] == [call]
    assert len(provider.requests) == 1


async def test_an_emulated_answer_is_kept_with_its_label(tmp_path):
    def config(url):
        return openai_config(url, capabilities="{system: true}")

    members = {"response_format": {"type": "json_object"}}
    async with gateway(tmp_path, says('{"a": 1}'), config=config) as (provider, on):
        answers = [await ask(on, **members) for _ in range(2)]
    assert list(map(status, answers)) == ["MISS", "HIT"]
    assert [one.json()["mixgate"]["emulated"] for one in answers] == [["json"], ["json"]]
    assert len(provider.requests) == 1


async def test_what_a_fallback_or_two_endpoints_gave_is_not_kept(tmp_path):
    cut = streams(*stream_chunks("one two three")[:3], cut=True)
    async with fake_provider(fails(503), cut, says("own")) as first, fake_provider(says("one two three")) as second:
        config = openai_config(first.base_url, second.base_url)
        config = config.replace("        serves: m", "        serves: n").replace("serves: n", "serves: m", 1)
        head, _, tail = config.partition("endpoints: [p0/up, p1/up]")
        fallback = f"{head}endpoints: [p0/up], fallback: [p1/up]{tail}"
        async with running_gateway(fallback, tmp_path) as on:
            by_fallback = await ask(on, stream=True)
            on.forget()
            rescued = await ask(on, stream=True)
            on.forget()
            own = await ask(on, stream=True)
            again = await ask(on, stream=True)
    assert [status(one) for one in (by_fallback, rescued, own, again)] == ["MISS", "MISS", "MISS", "HIT"]
    assert told(by_fallback)[0] == told(rescued)[0] == {0: "one two three"}
    assert told(again)[0] == {0: "own"}


async def test_what_is_saved_is_on_record_to_the_nano_dollar(tmp_path):
    async with gateway(tmp_path, says(THREE), config=configured, env={"ADMIN": ADMIN}) as (provider, on):
        key, item = await issue(on, limit=1.0)
        answers = [await ask(on, headers=ON | bearer(key)) for _ in range(3)]
        together = await asyncio.gather(*(ask(on, "at once", headers=ON | bearer(key)) for _ in range(4)))
        await store_savings(on.gateway.savings, on.gateway._store)
        assert await asyncio.to_thread(on.gateway._store.flush, 10)
        path = on.gateway._store.path
        spent = (await on.client.get("/api/v1/key", headers=bearer(key))).json()["data"]["usage"]
        with Reader(path) as reader:
            found = [reader.find_record(one.headers["x-generation-id"]) for one in (*answers, *together)]
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        rows = read_cache_rows(connection, 0, 10**9)
        entries = connection.execute("SELECT count(*), sum(cost_in_nusd) FROM entry").fetchone()
        connection.close()
    assert len(provider.requests) == 2
    assert entries == (2, 2 * COST_NUSD)
    assert spent == pytest.approx(2 * COST_NUSD / 1e9, abs=1e-12)
    assert [(row.key_id, row.route, row.model, row.hits, row.saved_in_nusd) for row in rows] == [
        (item["mixgate"]["id"], "m", "m", 5, 5 * COST_NUSD)
    ]
    kept = [decode(one) for one in found if one is not None]
    assert len(kept) == 7
    hits = [one for one in kept if one.cached is not None]
    assert [one.cached.saved_in_nusd for one in hits] == [COST_NUSD] * 5
    assert all(one.outcome == "ok" and not one.attempts and one.cost_in_nusd == 0 for one in hits)
    assert outcome_of(kept[1]).startswith(f"given the answer of {answers[0].headers['x-generation-id']}")
    assert f"saving {COST_USD} USD" in outcome_of(kept[1])


async def test_limits_count_what_is_given_again_and_money_that_is_spent_does_not_matter(tmp_path):
    async with gateway(tmp_path, says(THREE), config=configured, env={"ADMIN": ADMIN}) as (_, on):
        key, _ = await issue(on, limit=0.001, mixgate={"requests_per_min": 4})
        headers = ON | bearer(key)
        answers = [await ask(on, headers=headers, max_tokens=100) for _ in range(5)]
        free_key, _ = await issue(on, "free")
        unlimited = await ask(on, headers=bearer(free_key))
        poor, item = await issue(on, "poor", limit=1)
        spent = [await ask(on, headers=ON | bearer(poor), max_tokens=100)]
        await on.client.patch(f"/api/v1/keys/{item['hash']}", json={"limit": 0.000013}, headers=bearer(ADMIN))
        spent.append(await ask(on, headers=ON | bearer(poor), max_tokens=100))
        refused = await ask(on, "else", headers=ON | bearer(poor), max_tokens=100)
    assert [one.status_code for one in answers] == [200, 200, 200, 200, 429]
    assert [one.headers["x-ratelimit-remaining-requests"] for one in answers] == ["3", "2", "1", "0", "0"]
    assert all(one.headers["x-ratelimit-limit-requests"] == "4" for one in answers)
    assert not [name for name in unlimited.headers if name.startswith("x-ratelimit")]
    assert [status(one) for one in spent] == ["MISS", "HIT"]
    assert refused.status_code == 429
