"""What one answer of a pretended provider consists of: pieces of bytes, and where it breaks."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.simulate import answers
from gateway.simulate.dice import Dice
from gateway.simulate.texts import TOKEN_CHARS
from gateway.simulate.world import Fault, Job
from providers.errors import TruncatedError

PIECES_MAX: Final = 4
RAGGED_SHARE: Final = 0.05
"""How often the bytes of a stream are cut anywhere, in the middle of a character too."""
CLUMSY_SHARE: Final = 0.15
"""How often a model that is to answer in JSON does not."""
_BREAKS: Final = ("cut", "stall", "error_midway")
_CAUSES: Final = (*_BREAKS, "page", "empty", "error_inside", "twice_garbled")


class Step(Struct):
    """Some bytes, and what they stand for."""

    data: bytes
    text: str = ""
    tokens: int = 0
    after_s: float = 0.0
    silent: bool = False
    """Nothing comes any more."""
    error: TruncatedError | None = None
    """It hangs up here."""
    last: bool = False


class Script(Struct):
    """A whole answer, before its first byte is sent."""

    status: int
    headers: Mapping[str, str]
    steps: list[Step]
    before: str = ""
    after: str = ""
    cause: str = ""
    """Why it is no good answer, if it is none."""

    @property
    def tokens(self) -> int:
        """How many it has in all."""
        return sum(step.tokens for step in self.steps)

    def set_times(self, seconds_per_token: float) -> None:
        """Let each piece but the first take the time that its tokens take."""
        for step in self.steps[1:]:
            step.after_s = step.tokens * seconds_per_token


class Manner(Struct, frozen=True):
    """How an answer is given."""

    stream: bool
    native_call: bool
    """Tools were offered in the provider's own way, not in words."""
    reason: str
    """Why it ends."""
    input_tokens: int
    """What the provider counted."""
    says_done: bool
    """A stream ends with a mark."""
    piece_max_tokens: int
    """A slow provider hands over less at a time, so that it is never silent for long."""


def script_of(job: Job, text: str, dice: Dice, fault: Fault | None, manner: Manner) -> Script:
    """The answer with that text, or what a fault makes of it.

    Args:
        job: What the client asked.
        text: What the model says. Around it comes JSON where the client asked for that.
        dice: Where it breaks, into how many pieces it is cut.
        fault: What goes wrong.
        manner: How it is given.
    """
    before, after = _around(job, native_call=manner.native_call)
    if before and not manner.native_call and dice.chance(CLUMSY_SHARE):
        before = after = ""
    reason, input_tokens = manner.reason, manner.input_tokens
    cause = fault if fault in _CAUSES else ""
    tokens = -(-len(text) // TOKEN_CHARS)
    call = job.kind == "tools" and manner.native_call
    if call and reason == "stop":
        reason = "tool_calls"
    if not manner.stream:
        steps = _whole_steps(before + text + after, text, tokens, fault, reason, input_tokens, call=call)
        return Script(200, _headers(fault, stream=False), steps, before, after, "" if fault == "garbled" else cause)
    if fault in ("page", "empty", "error_inside"):
        data = {"page": answers.PAGE, "empty": b"", "error_inside": answers.role_chunk() + answers.ERROR_CHUNK}[fault]
        return Script(200, _headers(fault, stream=True), [Step(data, last=True)], before, after, cause)
    steps = _pieces(text, before, after, dice, manner.piece_max_tokens, call=call)
    if fault in _BREAKS:
        _break(steps, dice, fault)
        return Script(200, answers.STREAM_HEADERS, steps, before, after, cause)
    if fault in ("garbled", "twice_garbled"):
        bad = answers.BAD_CHUNK * (2 if fault == "twice_garbled" else 1)
        steps[-1].data = bad + steps[-1].data if dice.chance(0.5) else steps[-1].data + bad
    ending = answers.finish_chunk(reason) + answers.usage_chunk(input_tokens, tokens)
    steps[-1].data += ending + (answers.DONE if manner.says_done else b"")
    steps[-1].last = True
    if dice.chance(RAGGED_SHARE):
        steps = _ragged(steps, dice)
    return Script(200, answers.STREAM_HEADERS, steps, before, after, cause)


def _around(job: Job, *, native_call: bool) -> tuple[str, str]:
    """What stands around the text on the wire."""
    if job.kind == "json":
        return '{"a": "', '"}'
    if job.kind == "tools":
        return ('{"q": "', '"}') if native_call else ('{"content": "', '"}')
    return "", ""


def _headers(fault: Fault | None, *, stream: bool) -> Mapping[str, str]:
    if fault == "page":
        return answers.PAGE_HEADERS
    return answers.STREAM_HEADERS if stream else answers.JSON_HEADERS


def _pieces(text: str, before: str, after: str, dice: Dice, most_tokens: int, *, call: bool) -> list[Step]:
    tokens = -(-len(text) // TOKEN_CHARS)
    count = max(1, min(tokens, dice.whole(1, PIECES_MAX)), -(-tokens // most_tokens))
    size = -(-tokens // count) * TOKEN_CHARS
    steps: list[Step] = []
    for start in range(0, max(1, len(text)), size or 1):
        piece = text[start : start + size]
        said = (before if start == 0 else "") + piece + (after if start + size >= len(text) else "")
        data = answers.text_chunk(said) if said else b""
        steps.append(
            Step(answers.call_chunk(said, first=start == 0) if call else data, piece, -(-len(piece) // TOKEN_CHARS))
        )
    steps[0].data = answers.role_chunk() + steps[0].data
    return steps


def _break(steps: list[Step], dice: Dice, fault: Fault) -> None:
    """Go on to some piece, and no further."""
    del steps[dice.whole(1, len(steps)) :]
    if fault == "error_midway":
        steps[-1].data += answers.ERROR_CHUNK
        steps[-1].last = True
    elif fault == "stall":
        steps.append(Step(b"", silent=True))
    elif dice.chance(0.5):
        steps.append(Step(b"", error=TruncatedError("the provider hung up in the middle of its answer")))
    else:
        steps[-1].last = True  # the connection ends in good order, but no finish reason came


def _ragged(steps: list[Step], dice: Dice) -> list[Step]:
    ragged: list[Step] = []
    for step in steps:
        place = dice.whole(0, len(step.data))
        # What a piece stands for counts as handed over with its first part: a client may have seen it by then.
        first = Step(step.data[:place], step.text, step.tokens, step.after_s)
        ragged.extend((first, Step(step.data[place:], last=step.last)) if 0 < place < len(step.data) else (step,))
    return ragged


def _whole_steps(
    said: str, text: str, tokens: int, fault: Fault | None, reason: str, input_tokens: int, *, call: bool
) -> list[Step]:
    if fault == "stall":
        return [Step(b"", silent=True)]
    if fault == "cut":
        return [Step(b"", error=TruncatedError("the provider hung up in the middle of its answer"))]
    broken = {
        "page": answers.PAGE,
        "empty": b"",
        "twice_garbled": answers.PAGE,
        "error_inside": answers.refusal("the model crashed", None),
        "error_midway": answers.refusal("the model crashed", None),
    }
    if fault in broken:
        return [Step(broken[fault], last=True)]
    data = answers.whole_answer(said, reason, input_tokens, tokens, call=call)
    return [Step(data, text, tokens, last=True)]
