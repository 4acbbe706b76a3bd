"""What the pretended models say in a drill: sixty tokens, the same every time, so that any slip is seen."""

from typing import Final

from providers.pretence import Said

PIECE_CHARS: Final = 5
"""Of each token: it cuts through words and blanks alike, as tokens do."""
TEXT: Final = (
    "A gateway stands between an app and those who answer it. Some are slow, some are na\u00efve, some hang up in the "
    "middle of a word \u2014 and yet the app wants one answer, whole, with nothing lost and nothing said twice. So "
    "whoever goes on from here must find the exact seam: \u4e2d\u6587, \U0001f600, caf\u00e9, all of it. No less."
)
QUESTION: Final = "What does a gateway have to get right?"
INPUT_TOKENS: Final = 24


def split(text: str) -> tuple[str, ...]:
    """A text as tokens."""
    return tuple(text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))


PIECES: Final = split(TEXT)


def said_after(prefill: str, model: str) -> Said:
    """The answer, or what is left of it after a prefill; all of it after a prefill that is not its beginning."""
    pieces = split(TEXT.removeprefix(prefill))
    read = INPUT_TOKENS + len(split(prefill))
    return Said(pieces=pieces, input_tokens=read, output_tokens=len(pieces), model=model)
