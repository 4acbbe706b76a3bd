"""What can go wrong, as data: what the first provider asked does, what the others do, and what an app should see."""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from gateway.drill.speech import PIECES
from providers.pretence import Trouble

Does = Literal[
    "answer", "refuse", "reset", "silence", "cut", "hang_up", "stall", "garble", "fail", "no_end", "stay_open", "empty",
    "page",
]  # fmt: skip
"""answer: all is well. refuse: an error by status. reset: the connection breaks before any answer. silence: not even
headers. cut: the connection breaks in the middle. hang_up: the stream ends in the middle as if that were all. stall: it
stops talking. garble: one chunk cannot be read. fail: an error inside the answer. no_end: the end mark is missing.
stay_open: that too, and the connection stays. empty: 200 with nothing. page: 200 with a web page."""
Expect = Literal["answer", "policy", "failure"]
"""answer: the whole text, exactly. policy: the provider's refusal, passed on. failure: an honest error."""

FIRST_TOKEN_S: Final = 0.3
SILENCE_S: Final = 120.0
OUTAGE_S: Final = 60.0


class Act(Struct, frozen=True, gc=False, kw_only=True):
    """What a provider does with one request."""

    does: Does = "answer"
    trouble: Trouble = "server"
    """Of a refusal: which."""
    retry_after: str | None = None
    """Of a refusal: the header."""
    wait_s: float = FIRST_TOKEN_S
    """Before the first token; of a silence: how long it lasts."""
    after_tokens: int = 0
    """Where in the answer it happens."""
    after_share: float | None = None
    """The same as a share of the stream's bytes, from 0 up to 1: anywhere, in the middle of a character too."""
    read_bytes: int = 0
    """How many bytes arrive at once; 0: chunk by chunk."""


ANSWER: Final = Act()


class Script(Struct, frozen=True, gc=False, kw_only=True):
    """What a provider does with one request after the other."""

    first: tuple[Act, ...] = ()
    then: Act = ANSWER
    until_s: float | None = None
    """After so many seconds all is well again."""
    takes_prefill: bool = True

    def act(self, number: int, elapsed_s: float) -> Act:
        """What happens to the request of that number, from 0."""
        if self.until_s is not None and elapsed_s >= self.until_s:
            return ANSWER
        return self.first[number] if number < len(self.first) else self.then


WELL: Final = Script()


class Scenario(Struct, frozen=True, kw_only=True):
    """One thing that can go wrong."""

    id: str
    title: str
    primary: tuple[Script, ...]
    """What the first provider asked does: once, or in as many variations."""
    others: Script = WELL
    expect: Expect = "answer"
    within_s: float
    tries_max: int = 2
    """How often the first provider may be asked."""
    needs_other: bool = True
    """Whether only another Endpoint can save the answer."""
    larger_context: bool = False
    """Whether that one needs a larger context."""
    usage: bool = False
    """Whether the app must see what the answering provider counted, and the failing one must not have billed."""
    requests: int = 1
    every_s: float = 0.0
    recovered_s: float | None = None
    """How long after the outage the first provider may be left alone."""


def _always(**members: object) -> tuple[Script, ...]:
    return (Script(then=Act(**members)),)  # type: ignore[arg-type]  # each call below names members of Act


def _each(acts: Iterable[Act]) -> tuple[Script, ...]:
    return tuple(Script(then=act) for act in acts)


CUT_PLACES: Final = 24
"""At so many places, all over the stream, its connection breaks in E05."""

SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        id="S01",
        title="429 with Retry-After 2 s",
        primary=(Script(first=(Act(does="refuse", trouble="rate_limit", retry_after="2"),)),),
        within_s=6,
        needs_other=False,
    ),
    Scenario(
        id="S02",
        title="429 for ever, without Retry-After",
        primary=_always(does="refuse", trouble="rate_limit"),
        within_s=6,
        tries_max=4,
    ),
    Scenario(id="S03", title="one 500", primary=(Script(first=(Act(does="refuse"),)),), within_s=5, needs_other=False),
    Scenario(
        id="S04",
        title="503 for ever",
        primary=_always(does="refuse", trouble="overloaded"),
        within_s=6,
        tries_max=4,
    ),
    Scenario(id="S05", title="connection reset before any answer", primary=_always(does="reset"), within_s=6),
    Scenario(
        id="S06",
        title="silence for 120 s",
        primary=_always(does="silence", wait_s=SILENCE_S),
        within_s=15,
        tries_max=1,
    ),
    Scenario(id="S07", title="first token after 20 s", primary=_always(wait_s=20.0), within_s=15, tries_max=1),
    Scenario(
        id="S08",
        title="cut after 40 of 60 tokens",
        primary=_always(does="cut", after_tokens=40),
        within_s=8,
    ),
    Scenario(
        id="S09",
        title="silence after 20 of 60 tokens",
        primary=_always(does="stall", after_tokens=20),
        within_s=18,
        tries_max=1,
    ),
    Scenario(
        id="S10",
        title="one chunk that cannot be read",
        primary=_always(does="garble", after_tokens=20),
        within_s=5,
        tries_max=1,
        needs_other=False,
    ),
    Scenario(
        id="S11",
        title="no end mark",
        primary=_always(does="no_end"),
        within_s=5,
        tries_max=1,
        needs_other=False,
        usage=True,
    ),
    Scenario(
        id="S12",
        title="the prompt is too long for the first",
        primary=_always(does="refuse", trouble="context"),
        within_s=6,
        tries_max=1,
        larger_context=True,
    ),
    Scenario(
        id="S13",
        title="refused for its content",
        primary=_always(does="refuse", trouble="policy"),
        expect="policy",
        within_s=3,
        tries_max=1,
        needs_other=False,
    ),
    Scenario(
        id="S14",
        title="cut, and nobody goes on from a prefill",
        primary=_always(does="cut", after_tokens=40),
        others=Script(takes_prefill=False),
        within_s=10,
    ),
    Scenario(
        id="S15",
        title="down for 60 s under 20 requests",
        primary=(Script(then=Act(does="refuse"), until_s=OUTAGE_S),),
        within_s=15,
        tries_max=8,
        requests=20,
        every_s=3.0,
        recovered_s=30.0,
    ),
    Scenario(
        id="S16",
        title="who answered is told, who failed is not billed",
        primary=_always(does="refuse"),
        within_s=6,
        usage=True,
    ),
    Scenario(id="E01", title="200 with nothing in it", primary=_always(does="empty"), within_s=6),
    Scenario(id="E02", title="200 with a web page", primary=_always(does="page"), within_s=6),
    Scenario(id="E03", title="an error inside a 200", primary=_always(does="fail"), within_s=6),
    Scenario(
        id="E04",
        title="every byte comes by itself",
        primary=_always(read_bytes=1),
        within_s=5,
        tries_max=1,
        needs_other=False,
    ),
    Scenario(
        id="E05",
        title=f"cut at {CUT_PLACES} places of the stream",
        primary=_each(Act(does="cut", after_share=(place + 0.5) / CUT_PLACES) for place in range(CUT_PLACES)),
        within_s=8,
    ),
    Scenario(
        id="E06",
        title="cut after each of its tokens",
        primary=_each(Act(does="cut", after_tokens=count) for count in range(1, len(PIECES))),
        within_s=8,
    ),
    Scenario(
        id="E07",
        title="the stream just ends in the middle",
        primary=_always(does="hang_up", after_tokens=30),
        within_s=8,
    ),
    Scenario(
        id="E08",
        title="no end mark, and the line stays open",
        primary=_always(does="stay_open"),
        within_s=10,
        tries_max=1,
        needs_other=False,
    ),
    Scenario(
        id="E09",
        title="an error in the middle of the answer",
        primary=_always(does="fail", after_tokens=30),
        within_s=8,
    ),
    Scenario(
        id="E10",
        title="everything is down",
        primary=_always(does="refuse"),
        others=Script(then=Act(does="refuse")),
        expect="failure",
        within_s=30,
        needs_other=False,
    ),
)
"""S: what every gateway has to live through. E: what else was seen."""


def find_scenarios(wanted: Iterable[str]) -> tuple[Scenario, ...]:
    """Those of these ids, all where none is given.

    Raises:
        LookupError: There is none of that id.
    """
    by_id = {scenario.id: scenario for scenario in SCENARIOS}
    ids = [one.upper() for one in wanted]
    for one in ids:
        if one not in by_id:
            raise LookupError(one)
    return tuple(by_id[one] for one in ids) or SCENARIOS
