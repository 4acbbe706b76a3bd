"""How good is the demonstration model? `python -m local_backend.demo_model.evaluate [FILE]` asks it fresh questions.

Questions come from the corpus under a seed that training never uses, go through llama.cpp greedily, and an answer
counts when it is right to the letter. Development only: needs llama-cpp-python, whose high-level API the product
does not use.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import llama_cpp

from local_backend.demo_model import DEMO_FILE
from local_backend.demo_model.corpus import KINDS, Conversation, Turn, generate

SEED: Final = 20_261
SAMPLES: Final = 600
ANSWER_MAX_TOKENS: Final = 200
BEGIN_ID, END_ID, OPEN_ID, CLOSE_ID = 1, 2, 3, 4
BY_HAND: Final = (
    "Hello",
    "What is a routing gateway?",
    "so what exactly is a routing gateway",
    "Tell me about rate limits",
    "what's 7 plus 5?",
    "Return JSON with the country and capital of Japan.",
    "Who are you?",
    "Write an essay about the economy of Peru",
    "What is the capital of Mongolia?",
    "Repeat: zebra pancake",
)
"""Questions that a newcomer may type; answers are printed, not judged."""

log = logging.getLogger("evaluate")


class Answerer:
    """The model behind llama.cpp, one question at a time."""

    def __init__(self, file: Path) -> None:
        self._model = llama_cpp.Llama(str(file), n_ctx=1024, n_threads=1, verbose=False)

    def answer(self, system: str, turns: Sequence[Turn]) -> str:
        """The greedy answer to the last turn's question, given the turns before it."""
        ids = [BEGIN_ID]
        for place, turn in enumerate(turns):
            lead = f"{system}\n\n" if system and place == 0 else ""
            ids += [OPEN_ID, *self._encode(f" {lead}{turn.question} "), CLOSE_ID]
            if place < len(turns) - 1:
                ids += [*self._encode(turn.answer), END_ID]
        out: list[int] = []
        for token in islice(self._model.generate(ids, temp=0.0), ANSWER_MAX_TOKENS):
            if token == END_ID:
                break
            out.append(token)
        return self._model.detokenize(out).decode("utf-8", "replace")

    def _encode(self, text: str) -> list[int]:
        # User text is never parsed for control tokens, as in the product.
        return self._model.tokenize(text.encode(), add_bos=False, special=False)


def judge(answerer: Answerer, samples: int) -> tuple[Counter[str], Counter[str]]:
    """How many of each kind were asked, and how many were right."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for conversation in islice(generate(SEED), samples):
        asked[conversation.kind] += 1
        if _is_right(answerer, conversation):
            right[conversation.kind] += 1
    return asked, right


def _is_right(answerer: Answerer, conversation: Conversation) -> bool:
    last = conversation.turns[-1]
    found = answerer.answer(conversation.system, conversation.turns)
    if found != last.answer:
        log.info("wrong (%s): %r\n    wanted %r\n    got    %r", conversation.kind, last.question, last.answer, found)
    return found == last.answer


def main() -> None:
    """Ask, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=DEMO_FILE)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    answerer = Answerer(arguments.file)
    asked, right = judge(answerer, arguments.samples)
    for kind in KINDS:
        log.info("%-14s %4d of %4d", kind, right[kind], asked[kind])
    log.info("%-14s %4d of %4d (%.1f %%)", "all", right.total(), asked.total(), 100 * right.total() / asked.total())
    for question in BY_HAND:
        log.info("%s\n    -> %s", question, answerer.answer("", (Turn(question, ""),)))


if __name__ == "__main__":
    main()
