"""What a client gets out of a real worker process on the bundled model."""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from blockbuster import blockbuster_ctx

from local_backend import supervisor as supervisor_module
from local_backend.answers import TEXT_EVERY_S
from local_backend.backend import LocalBackend, LocalModelSpec


async def test_a_greeting_is_answered_streamed_and_whole(demo):
    streamed = await demo.ask("Hello", temperature=0)
    whole = await demo.ask("Hello", temperature=0, stream=False)
    assert streamed.status == whole.status == 200
    assert streamed.text() == whole.text() != ""
    assert streamed.reasons() == whole.reasons() == {0: "stop"}
    assert [line["t"] for line in whole.lines] == ["text", "finish", "usage"]


async def test_tokens_that_come_fast_are_sent_together_and_no_text_is_lost(demo):
    asked = {"temperature": 1, "seed": 3, "max_tokens": 400, "n": 4}
    began_s = time.perf_counter()
    response = await demo.open("Tell me a story", **asked)
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    took_s = time.perf_counter() - began_s
    lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
    # The first text of all and each choice's end go out at once, the rest every so often.
    assert len(pieces) <= 2 + 4 + took_s / TEXT_EVERY_S
    whole = await demo.ask("Tell me a story", stream=False, **asked)
    for choice in range(4):
        said = "".join(line["text"] for line in lines if line["t"] == "text" and line.get("choice", 0) == choice)
        assert said == "".join(
            line["text"] for line in whole.lines if line["t"] == "text" and line.get("choice", 0) == choice
        )


async def test_usage_is_exact_by_the_models_own_tokenizer(demo, vocabulary):
    answer = await demo.ask("What is a routing gateway?", temperature=0)
    prompt = [1, 3, *vocabulary.tokenize(" What is a routing gateway? "), 4]
    assert answer.usage["input_tokens"] == len(prompt)
    assert answer.usage["output_tokens"] == len(vocabulary.tokenize(answer.text()))


async def test_the_system_message_is_honoured(demo):
    user = {"role": "user", "content": "Hello"}
    plain = await demo.ask([user], temperature=0)
    told = await demo.ask([{"role": "system", "content": "You are a concise assistant."}, user], temperature=0)
    assert told.usage["input_tokens"] > plain.usage["input_tokens"] + 5


async def test_a_token_limit_ends_the_answer_with_length(demo):
    answer = await demo.ask("Count to 12.", temperature=0, max_tokens=4)
    assert answer.reasons() == {0: "length"}
    assert answer.usage["output_tokens"] == 4


async def test_a_stop_string_across_token_borders_ends_the_answer_and_is_not_in_it(demo):
    full = (await demo.ask("Count to 9.", temperature=0)).text()
    stop = full[7:12]
    answer = await demo.ask("Count to 9.", temperature=0, stop=["never", stop])
    assert answer.text() == full[: full.index(stop)]
    assert answer.reasons() == {0: "stop"}


async def test_several_choices_come_each_with_its_own_end(demo):
    answer = await demo.ask("Tell me a joke", n=3, temperature=1.5, seed=3)
    assert answer.reasons().keys() == {0, 1, 2}
    assert all(answer.text(choice) for choice in range(3))
    alone = await demo.ask("Tell me a joke", temperature=1.5, seed=3)
    assert answer.usage["input_tokens"] == alone.usage["input_tokens"]


async def test_more_choices_than_slots_are_all_answered(demo):
    answer = await demo.ask("Hello", n=8, temperature=0)
    assert answer.reasons().keys() == set(range(8))
    assert len({answer.text(choice) for choice in range(8)}) == 1


async def test_a_seed_repeats_the_answer_and_another_seed_does_not(demo):
    async def told(seed: int) -> str:
        return (await demo.ask("Tell me a story", temperature=2.0, min_p=0, seed=seed, max_tokens=40)).text()

    assert await told(7) == await told(7)
    assert len({await told(seed) for seed in range(4)}) == 4


async def test_negative_and_huge_seeds_are_good_seeds(demo):
    for seed in (-1, 0xFFFF_FFFF, -(2**63), 2**63 - 1):
        assert (await demo.ask("Hi", seed=seed, max_tokens=3)).status == 200


async def test_logprobs_are_openais_entries_one_per_token(demo):
    answer = await demo.ask("What is Mixtral?", temperature=0, logprobs=True, top_logprobs=3)
    entries = answer.entries()
    assert len(entries) == answer.usage["output_tokens"]
    assert "".join(entry["token"] for entry in entries) == answer.text()
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] >= entry["logprob"]
        assert entry["logprob"] == max(each["logprob"] for each in entry["top_logprobs"])  # greedy takes the likeliest


async def test_penalties_change_a_greedy_answer(demo):
    async def told(**members: float) -> str:
        return (await demo.ask("Repeat: dog dog dog dog dog dog", temperature=0, max_tokens=40, **members)).text()

    plain = await told()
    for members in ({"frequency_penalty": 2, "presence_penalty": 2}, {"repeat_penalty": 2}):
        assert await told(**members) != plain, members


async def test_a_prefill_is_continued(demo):
    turns = [{"role": "user", "content": "Count to 5."}, {"role": "assistant", "content": "1, 2, 3"}]
    answer = await demo.ask(turns, temperature=0, prefill=True)
    assert answer.text() == ", 4, 5."


async def test_a_conversation_reuses_what_is_computed(demo):
    turns = [{"role": "user", "content": "My name is Ada."}]
    first = await demo.ask(turns, temperature=0)
    turns += [{"role": "assistant", "content": first.text()}, {"role": "user", "content": "What is my name?"}]
    second = await demo.ask(turns, temperature=0)
    assert second.usage["cached_input_tokens"] >= first.usage["input_tokens"]
    assert second.usage["cached_input_tokens"] < second.usage["input_tokens"]


async def test_the_same_answer_with_and_without_reuse(demo):
    first = await demo.ask("What is a token?", temperature=0)
    await demo.ask("Hello", temperature=0)
    again = await demo.ask("What is a token?", temperature=0)
    assert again.text() == first.text()


async def test_too_long_a_conversation_is_refused_with_counts(demo):
    answer = await demo.ask("word " * 3000)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert "2048" in answer.error["message"]
    assert "300" in answer.error["message"]
    asked_for_too_much = await demo.ask("Hi", max_tokens=2048)
    assert asked_for_too_much.error["code"] == "context_length_exceeded"
    assert (await demo.ask("Hi", max_tokens=1000)).status == 200


async def test_a_body_of_megabytes_is_refused_without_bothering_the_worker(demo):
    answer = await demo.ask("x" * (9 * 2**20))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": -1},
        {"temperature": 1e9},
        {"temperature": "hot"},
        {"top_p": 1.5},
        {"top_k": -7},
        {"min_p": 2},
        {"n": 0},
        {"n": 9},
        {"max_tokens": 0},
        {"stop": ["x"] * 17},
        {"stop": ["x" * 5000]},
        {"top_logprobs": 21},
        {"repeat_penalty": 0},
        {"presence_penalty": 3},
        {"seed": 2**70},
        {"deadline_s": -1},
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": "hello"},
        {"prefill": True},
    ],
)
async def test_bad_members_are_a_400_that_names_them(demo, members):
    answer = await demo.ask("Hi", **members)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["param"] in (*members, "messages")
    assert (await demo.backend.stats("demo")).admitted == 0


async def test_what_is_not_json_is_a_400(demo):
    for body in (b"", b"{", b"[]", b"\xff", b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"[" * 100_000):
        response = await demo.backend.send(demo.request("x").__class__("local:demo", body, False), connect_timeout_s=1)
        assert response.status in (200, 400)
        assert json.loads((await response.read()).splitlines()[0])


async def test_odd_texts_are_answered(demo):
    for text in (
        "",
        " ",
        "\x00",
        "\ue000",
        "\u202e",
        "é" * 200,
        "\U0001f600" * 50,
        "<s></s>[INST]",
        "{{ 7*7 }}{% raw %}",
    ):
        answer = await demo.ask(text, max_tokens=5)
        assert answer.status == 200, text


async def test_streamed_pieces_never_split_a_character(demo):
    async def ask(seed: int) -> None:
        answer = await demo.ask("Say é", temperature=5.0, min_p=0, top_p=1, seed=seed, max_tokens=150)
        assert "".join(line["text"] for line in answer.lines if line["t"] == "text") == answer.text()
        answer.text().encode("utf-8")

    await asyncio.gather(*(ask(seed) for seed in range(4)))


async def test_an_unknown_model_is_a_404(demo):
    response = await demo.backend.send(demo.request("x").__class__("local:nope", b"{}", False), connect_timeout_s=1)
    assert response.status == 404
    assert json.loads(await response.read())["error"]["code"] == "local_unknown_model"


async def test_a_request_waits_for_a_model_that_is_starting(run):
    async with run() as demo:
        assert demo.backend.models()[0].state == "starting"
        assert (await demo.ask("Hello", temperature=0)).status == 200
        status = demo.backend.models()[0]
        assert (status.state, status.reason, status.context_tokens) == ("ready", "", 2048)
        assert status.size_bytes > 1_000_000


async def test_a_lazy_model_starts_when_asked(run):
    async with run(load="lazy") as demo:
        assert (demo.backend.models()[0].state, demo.backend.models()[0].can_serve) == ("off", True)
        assert demo.backend.worker_pid("demo") is None
        assert (await demo.ask("Hello")).status == 200
        assert demo.backend.models()[0].state == "ready"


@pytest.mark.usefixtures("engine")
async def test_a_file_that_is_not_there_is_off_and_says_how_to_get_it(tmp_path):
    backend = LocalBackend([LocalModelSpec(name="big", file="mixtral.gguf", load="boot")], tmp_path)
    await backend.start()
    status = backend.models()[0]
    assert (status.state, status.can_serve) == ("off", False)
    assert "not pulled" in status.reason
    await backend.aclose()


@pytest.mark.usefixtures("engine")
async def test_a_bad_file_is_refused_in_words_before_native_code_sees_it(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.gguf").write_bytes(b"this is no model" * 100)
    backend = LocalBackend([LocalModelSpec(name="bad", file="bad.gguf", load="boot")], tmp_path)
    await backend.start()
    response = await backend.send(
        _Plain("local:bad", b'{"messages":[{"role":"user","content":"x"}]}'), connect_timeout_s=1
    )
    assert response.status == 503
    assert json.loads(await response.read())["error"]["code"] == "local_not_ready"
    assert (backend.models()[0].state, backend.models()[0].can_serve) == ("refused", False)
    assert "GGUF" in backend.models()[0].reason
    await backend.aclose()


class _Plain:
    def __init__(self, url: str, body: bytes) -> None:
        self.url, self.body, self.stream, self.caller = url, body, False, ""


async def test_without_the_extra_the_models_are_off_and_say_what_to_do(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llama_cpp" else real(name, *a))
    backend = LocalBackend([LocalModelSpec(name="demo", file="bundled", load="boot")], tmp_path)
    await backend.start()
    status = backend.models()[0]
    assert status.state == "off"
    assert "local extra is not installed" in status.reason
    response = await backend.send(_Plain("local:demo", b"{}"), connect_timeout_s=1)
    assert response.status == 503
    await backend.aclose()


def test_importing_the_gateways_side_loads_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import local_backend.backend;"
        "print([m for m in ('numpy', 'jinja2', 'llama_cpp', 'httpx', 'aiohttp') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_works_on_uvloop(run):
    uvloop = pytest.importorskip("uvloop")

    async def ask() -> None:
        async with run() as demo:
            answer = await demo.ask("Hello", temperature=0)
            assert answer.status == 200
            assert answer.text()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


async def test_the_event_loop_is_never_blocked(run, endless):
    with blockbuster_ctx():
        async with run() as demo:
            assert (await demo.ask("Hello", temperature=0)).status == 200
            response = await demo.open("Hello", **endless)
            os.kill(demo.backend.worker_pid("demo"), signal.SIGKILL)
            assert b"local_worker_crashed" in await last_of(response)
            assert (await demo.ask("Hello", temperature=0)).status == 200


async def last_of(response):
    last = b""
    while piece := await response.read():
        last = piece
    return last


async def test_a_supervisor_that_fails_itself_leaves_nobody_waiting(run, monkeypatch):
    monkeypatch.setattr(supervisor_module, "worker_environment", dict[str, int]().__getitem__)
    async with run() as demo:
        answer = await demo.ask("Hello")
        assert (answer.status, answer.error["code"]) == (503, "local_not_ready")
        assert "TypeError" in demo.backend.models()[0].reason


async def test_no_two_requests_share_text(run):
    words = [
        f"{first} {second}"
        for first in ("red", "cold", "river", "lemon")
        for second in ("dog", "house", "moon", "fire")
    ]
    async with run(slots=8) as demo:
        answers = await asyncio.gather(*(demo.ask(f"Repeat: {word}", temperature=0) for word in words))
        alone = [await demo.ask(f"Repeat: {word}", temperature=0) for word in words]
    same = sum(answer.text() == single.text() for answer, single in zip(answers, alone, strict=True))
    assert same >= 0.98 * len(words) - 1
    for word, answer in zip(words, answers, strict=True):
        others = {part for other in words for part in other.split()} - set(word.split())
        assert not others & set(answer.text().split()), (word, answer.text())
