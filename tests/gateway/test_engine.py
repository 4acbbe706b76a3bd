"""The engine alone: scripted transports, virtual time, nothing on a socket and nothing waited for."""

import asyncio
import copy
import json
from dataclasses import dataclass, field

import pytest

from gateway.answer import Answer
from gateway.attempts import ATTEMPTS_MAX, Limits
from gateway.course import Course
from gateway.errors import most_useful
from gateway.fleet import Fleet
from gateway.health import Health, HedgeBudget
from gateway.observation import UNOBSERVED
from gateway.routing.candidate import Candidate, Plan
from gateway.turns import Turns
from gateway.upstream import Upstream
from gateway.virtual_time import run
from gateway.watch import Alarm
from providers.base import Endpoint
from providers.errors import (
    BadRequestError,
    ConnectError,
    ContentPolicyError,
    CredentialsError,
    FirstTokenTimeoutError,
    MixgateError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    ResetError,
    StalledError,
    TruncatedError,
    UnknownModelError,
)
from providers.messages import ChatRequest, ChoiceFinished, Message, TextDelta
from providers.openai import OpenAi
from tests.fakes.provider import chunk, completion

ROLE = chunk({"role": "assistant", "content": ""})
ONE, TWO, END = chunk({"content": "one"}), chunk({"content": " two"}), chunk({}, "stop")
DONE = b"data: [DONE]\n\n"
LIMITS = Limits(
    first_token_timeout_s=10,
    last_first_token_timeout_s=120,
    idle_timeout_s=30,
    whole_timeout_s=300,
    total_timeout_s=600,
)


@dataclass
class Response:
    """An answer: bytes to read, a number to wait for that many seconds, an exception to raise."""

    script: list
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    closed: list = field(default_factory=list)

    async def read(self):
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                return step
            await asyncio.sleep(step)
        return b""

    def close(self, *, ended=False):
        self.closed.append(ended)


@dataclass
class Transport:
    """Gives a response after a pause, or raises; remembers what was sent."""

    answers: list
    sent: list = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self):
        self.again = copy.deepcopy(self.answers[-1])

    async def send(self, request, *, connect_timeout_s):  # noqa: ARG002 (part of the seam)
        self.sent.append(request)
        answer = self.answers.pop(0) if self.answers else copy.deepcopy(self.again)
        pause_s, answer = answer if isinstance(answer, tuple) else (0, answer)
        try:
            await asyncio.sleep(pause_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self):
        """Nothing is open."""


def stream(*script, **more):
    return Response(list(script), headers={"content-type": "text/event-stream"}, **more)


def whole(text="all"):
    return Response([], headers={"content-type": "application/json"}, body=json.dumps(completion(text)).encode())


def refuses(status, **error):
    return Response([json.dumps({"error": error or {"message": "no"}}).encode()], status)


class Scene:
    """An Answer over scripted endpoints, in order. Make it inside a running loop."""

    def __init__(
        self, *answers, streamed=True, limits=LIMITS, rescue=False, hedge=False, observation=UNOBSERVED, **members
    ):
        self.transports = [Transport(answer if isinstance(answer, list) else [answer]) for answer in answers]
        endpoints = tuple(
            Endpoint(
                id=f"p{place}/up", provider=f"p{place}", model="m", upstream_model="up", base_url=f"http://p{place}"
            )
            for place in range(len(answers))
        )
        upstreams = {
            endpoint.id: Upstream(OpenAi(), transport, {"authorization": f"Bearer key{place}"})
            for place, (endpoint, transport) in enumerate(zip(endpoints, self.transports, strict=True))
        }
        request = ChatRequest(messages=(Message(role="user", content="hi"),), model="m", stream=streamed, **members)
        loop = asyncio.get_running_loop()
        plan = Plan(
            "m",
            "ordered",
            tuple(Candidate(endpoint, observation, 0, 1) for endpoint in endpoints),
            rescue=rescue,
            hedge=hedge,
        )
        self.health = Health(lambda: 0.5)
        budget = self.health.retries
        now_s = loop.time()
        turns = Turns(plan, self.health, budget, now_s=now_s, total_s=limits.total_timeout_s, draw=0.5)
        course = Course(
            plan=plan,
            turns=turns,
            fleet=Fleet(None, upstreams, {}),
            health=self.health,
            limits=limits,
            deadline_s=now_s + limits.total_timeout_s,
            prompt_tokens=0,
            unix_time_s=lambda: 0.0,
            loop=loop,
            alarm=Alarm(loop),
            task=None,
            caller="local",
            hedges=HedgeBudget(),
        )
        self.answer = Answer(request, course)

    async def read(self):
        """All text until the end, and the error it ended with, if any."""
        text = ""
        try:
            while events := await self.answer.next():
                text += "".join(event.text for event in events if isinstance(event, TextDelta))
        except MixgateError as error:
            return text, error
        return text, None

    @property
    def outcomes(self):
        return [(attempt.outcome, attempt.code) for attempt in self.answer.attempts]

    @property
    def asked(self):
        return [len(transport.sent) for transport in self.transports]


def play(*answers, **settings):
    """Read a scene to its end; gives the scene, its text, its error, and how many seconds it took."""

    async def act():
        scene = Scene(*answers, **settings)
        started_s = asyncio.get_running_loop().time()
        text, error = await scene.read()
        scene.answer.close()
        return scene, text, error, asyncio.get_running_loop().time() - started_s

    return run(act())


# ---- the commit point


def test_a_good_answer_takes_one_attempt():
    response = stream(ROLE, ONE, TWO, END, DONE)
    scene, text, error, _ = play(response, whole())
    assert (text, error, scene.asked, scene.outcomes) == ("one two", None, [1, 0], [("ok", None)])
    assert response.closed == [True]
    assert scene.transports[0].sent[0].headers["authorization"] == "Bearer key0"


BEFORE = {
    "refused": ConnectError("no"),
    "503": refuses(503),
    "429": refuses(429),
    "cut at once": stream(TruncatedError("cut")),
    "empty": stream(),
    "role only": stream(ROLE, TruncatedError("cut")),
    "role, then a clean end": stream(ROLE),
    "error in band": stream(b'data: {"error": {"code": 503, "message": "x"}}\n\n'),
}


@pytest.mark.parametrize("bad", BEFORE.values(), ids=BEFORE)
def test_before_content_a_failure_moves_on_and_nothing_of_it_is_seen(bad):
    scene, text, error, _ = play(bad, stream(ROLE, TWO, END))
    assert (text, error) == (" two", None)
    assert [outcome for outcome, _ in scene.outcomes] == ["failed", "ok"]
    assert scene.answer.endpoint.id == "p1/up"


AFTER = {
    "cut": (TruncatedError("cut"), "answer_truncated"),
    "clean end": (None, "answer_truncated"),
    "error in band": (b'data: {"error": {"code": 429, "message": "x"}}\n\n', "rate_limited"),
    "garbage": (b"data: {\n\ndata: {\n\n", "provider_garbled"),
}


@pytest.mark.parametrize(("last", "code"), AFTER.values(), ids=AFTER)
def test_after_content_a_failure_is_told_and_nobody_else_is_asked(last, code):
    scene, text, error, _ = play(stream(ROLE, ONE, *([last] if last else [])), whole())
    assert (text, error.code, scene.asked) == ("one", code, [1, 0])
    assert scene.outcomes == [("failed", code)]
    assert scene.answer.committed


def test_a_failed_answer_stays_failed():
    async def act():
        scene = Scene(stream(ONE, TruncatedError("cut")))
        await scene.read()
        with pytest.raises(TruncatedError):
            await scene.answer.next()

    run(act())


def test_a_whole_answer_commits_last():
    broken = Response([], headers={"content-type": "application/json"}, body=b'{"choices": [')
    scene, text, error, _ = play(broken, whole("good"), streamed=False)
    assert (text, error, scene.outcomes) == ("good", None, [("failed", "provider_garbled"), ("ok", None)])


def test_a_whole_body_to_a_streamed_question_is_understood():
    response = Response([json.dumps(completion("all")).encode()], headers={"content-type": "application/json"})
    assert play(response)[1:3] == ("all", None)


def test_the_end_mark_ends_it_even_when_the_connection_stays_open():
    _, text, error, took_s = play(stream(ONE, END, DONE, 3600))
    assert (text, error, took_s) == ("one", None, 0)


# ---- who is asked, how often, and what is said in the end


def test_no_more_than_the_cap_are_asked():
    scene, _, error, _ = play(*(refuses(503) for _ in range(ATTEMPTS_MAX + 2)))
    assert isinstance(error, OverloadedError)
    assert scene.asked == [1] * ATTEMPTS_MAX + [0, 0]


@pytest.mark.parametrize("status", [400, 422])
def test_what_is_wrong_everywhere_is_asked_once(status):
    scene, _, error, _ = play(refuses(status), whole())
    assert (type(error), scene.asked) == (BadRequestError, [1, 0])


def test_of_all_errors_the_most_useful_is_told():
    _, _, error, _ = play(refuses(401), ConnectError("no"), refuses(429, message="slow down"), refuses(500))
    assert (type(error), error.message) == (RateLimitedError, "slow down")


def kinds(kind=ProviderError):
    """The tree of errors, as far as it stands in its own module."""
    children = [child for child in kind.__subclasses__() if child.__module__ == kind.__module__]
    return [kind, *(inner for child in children for inner in kinds(child))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_of_error_has_its_place(kind):
    """A provider's own failure says more than that nobody was reached; a wrong request says most."""
    error = kind("x")
    assert most_useful([error]) is error
    assert most_useful([ContentPolicyError("p"), error]).code in ("content_policy_violation", "invalid_request")
    if not issubclass(kind, ConnectError) and kind is not ProviderError:
        assert most_useful([ConnectError("c"), error]) is error
    if not issubclass(kind, ConnectError | CredentialsError) and kind is not ProviderError:
        assert most_useful([CredentialsError("c"), error]) is error
    assert most_useful([UnknownModelError("a"), UnknownModelError("b")]).message == "a"


@pytest.mark.parametrize("hiccup", [refuses(500), refuses(502), ResetError("gone")])
def test_after_a_hiccup_the_same_endpoint_is_asked_once_more_a_moment_later(hiccup):
    scene, text, _, took_s = play([hiccup, stream(ONE, END)], stream(TWO, END))
    assert (text, scene.asked, took_s) == ("one", [2, 0], pytest.approx(0.25, abs=0.01))
    assert [attempt.why for attempt in scene.answer.attempts] == ["planned", "again"]
    scene, text, _, _ = play(hiccup, stream(TWO, END))
    assert (text, scene.asked) == (" two", [2, 1])


# ---- limits, in virtual time


def test_silence_before_the_first_token_goes_to_the_next_after_ten_seconds():
    scene, text, _, took_s = play((3600, stream(ONE)), stream(TWO, END))
    assert (text, took_s) == (" two", pytest.approx(10, abs=0.1))
    assert scene.outcomes == [("failed", "first_token_timeout"), ("ok", None)]
    assert scene.transports[0].cancelled == 1


def test_the_last_one_may_take_longer():
    _, _, error, took_s = play((3600, stream(ONE)))
    assert (type(error), took_s) == (FirstTokenTimeoutError, pytest.approx(120, abs=0.1))


def test_comments_and_empty_chunks_are_no_token():
    comments = [part for _ in range(100) for part in (b": hold on\n\n", 1)]
    empties = [part for _ in range(100) for part in (ROLE, 1)]
    for script in (comments, empties):
        scene, text, _, took_s = play(stream(*script), stream(TWO, END))
        assert (text, scene.outcomes[0][1]) == (" two", "first_token_timeout")
        assert took_s < 22


def test_a_stream_may_pause_but_not_stop():
    pauses = [part for _ in range(10) for part in (ONE, 29)]
    assert play(stream(*pauses, END))[1] == "one" * 10
    _, text, error, took_s = play(stream(ONE, 3600))
    assert (text, type(error), took_s) == ("one", StalledError, pytest.approx(30, abs=0.1))


def test_a_slow_client_does_not_count():
    async def act():
        scene = Scene(stream(ONE, TWO, END))
        texts = []
        while events := await scene.answer.next():
            texts += [event.text for event in events if isinstance(event, TextDelta)]
            await asyncio.sleep(500)
        return texts

    assert run(act()) == ["one", " two"]


def test_a_whole_answer_has_its_own_limit():
    scene, text, _, took_s = play((3600, whole()), whole("next"), streamed=False)
    assert (text, took_s) == ("next", pytest.approx(300, abs=0.1))
    assert scene.outcomes[0] == ("failed", "first_token_timeout")


def test_all_attempts_together_have_a_limit():
    slow = [(3600, whole()) for _ in range(ATTEMPTS_MAX)]
    scene, _, error, took_s = play(*slow, streamed=False)
    assert (type(error), took_s) == (FirstTokenTimeoutError, pytest.approx(600, abs=0.1))
    assert sum(scene.asked) == 2


def test_a_stream_that_never_ends_has_a_limit():
    _, text, error, took_s = play(stream(*(part for _ in range(1000) for part in (ONE, 20))))
    assert (type(error), took_s) == (StalledError, pytest.approx(600, abs=0.1))
    assert text.startswith("oneone")


def test_an_error_body_that_never_ends_is_left():
    _, text, _, took_s = play(Response([b"{", 3600], 503), stream(TWO, END))
    assert (text, took_s) == (" two", pytest.approx(10, abs=0.1))


# ---- leaving


async def leave(scene, after_s):
    reading = asyncio.create_task(scene.read())
    await asyncio.sleep(after_s)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    for _ in range(3):
        scene.answer.close()


@pytest.mark.parametrize(
    "first", [(3600, whole()), stream(ROLE, 3600), stream(ONE, 3600)], ids=["sent", "open", "begun"]
)
def test_a_client_that_leaves_is_nobodys_failure(first):
    async def act():
        scene = Scene(first, whole())
        await leave(scene, 1)
        assert scene.outcomes == [("cancelled", "cancelled")]
        assert scene.asked == [1, 0]
        if isinstance(first, Response):
            assert first.closed == [False]

    run(act())


def test_closing_a_complete_answer_changes_nothing():
    async def act():
        response = stream(ONE, END, DONE)
        scene = Scene(response)
        await scene.read()
        scene.answer.close()
        scene.answer.close()
        assert (scene.outcomes, response.closed) == ([("ok", None)], [True])
        assert await scene.answer.next() == ()

    run(act())


def test_an_answer_never_asked_for_can_be_closed():
    async def act():
        scene = Scene(whole())
        scene.answer.close()
        assert (scene.outcomes, scene.asked) == ([], [0])

    run(act())


def test_events_are_handed_over_as_they_come():
    async def act():
        scene = Scene(stream(ROLE, ONE, TWO, END, DONE))
        first = await scene.answer.next()
        assert [type(event).__name__ for event in first] == ["AnswerStarted", "TextDelta"]
        assert scene.answer.committed
        assert not scene.answer.complete
        assert await scene.answer.next() == [TextDelta(" two")]
        assert await scene.answer.next() == [ChoiceFinished("stop", 0, "stop")]
        scene.answer.close()

    run(act())


def test_a_refusal_of_what_was_said_is_not_shopped_around_however_late_it_comes():
    refused = b'data: {"error": {"code": "content_policy_violation", "message": "no", "type": "x"}}\n\n'
    scene, text, error, _ = play(stream(ROLE, ONE, refused), stream(ONE, TWO, END), rescue=True)
    assert (text, type(error), scene.asked) == ("one", ContentPolicyError, [1, 0])
