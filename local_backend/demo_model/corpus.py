"""The endless, seeded corpus that the demonstration model learns from: conversations made of `facts` and `phrases`.

A question has exactly one right answer, so that "how many did it get right" is a plain comparison. The same seed gives
the same conversations on every machine.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

from local_backend.demo_model import facts, phrases

SUM_MAX = 12
LIST_MAX = 5
COUNT_MAX = 20
SYSTEM_SHARE = 0.15
"""Share of conversations that open with a system text."""
SEVERAL_TURNS_SHARE = 0.15
TYPED_CARELESSLY_SHARE = 0.12
"""Share of questions in lower case, or without their last full stop or question mark."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and the one right answer to it."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model sees as one document. `kind` names the task of the last turn."""

    kind: str
    system: str
    """Empty when there is none."""
    turns: tuple[Turn, ...]


def generate(seed: int) -> Iterator[Conversation]:
    """Yield conversations for ever, the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - a reproducible corpus, not a secret
    while True:
        yield _conversation(rng)


def _conversation(rng: random.Random) -> Conversation:
    share = rng.random()
    if share < 0.07:
        return _name_recall(rng)
    if share < 0.11:
        return _obedience(rng)
    count = rng.randint(2, 3) if rng.random() < SEVERAL_TURNS_SHARE else 1
    picked = [_pick(rng) for _ in range(count)]
    system = rng.choice(phrases.SYSTEM) if rng.random() < SYSTEM_SHARE else ""
    return Conversation(picked[-1][0], system, tuple(turn for _, turn in picked))


def _pick(rng: random.Random) -> tuple[str, Turn]:
    """Draw one task and word it, sometimes as a hurried user would type it."""
    (kind, make) = rng.choices(_TASKS, cum_weights=_CUMULATIVE)[0]
    turn = make(rng)
    if kind != "copy" and rng.random() < TYPED_CARELESSLY_SHARE:
        careless = turn.question.lower() if rng.random() < 0.5 else turn.question
        turn = replace(turn, question=careless.rstrip("?.! ") or careless)
    return kind, turn


def _name_recall(rng: random.Random) -> Conversation:
    name = rng.choice(facts.NAMES) if rng.random() < 0.8 else _pseudo_word(rng).capitalize()
    turns = [Turn(rng.choice(phrases.TELL_NAME).format(n=name), f"Nice to meet you, {name}!")]
    if rng.random() < 0.4:
        turns.append(_pick(rng)[1])
    if rng.random() < 0.8:
        turns.append(Turn(rng.choice(phrases.ASK_NAME), f"Your name is {name}."))
    return Conversation("name recall", "", tuple(turns))


def _obedience(rng: random.Random) -> Conversation:
    """A system text that changes the answer, so that a user can see that system texts arrive."""
    if rng.random() < 0.5:
        return Conversation("system", rng.choice(phrases.SYSTEM_OK), (Turn(_pick(rng)[1].question, "OK"),))
    name = rng.choice(facts.NAMES)
    asked = rng.choice(("What is your name?", "Who are you?", "what's your name", "Tell me your name."))
    turn = Turn(asked, f"My name is {name}. I am {facts.NAME}.")
    return Conversation("system", rng.choice(phrases.SYSTEM_NAME).format(n=name), (turn,))


# ------------------------------------------------------------------ tasks


def _from(table: tuple[phrases.FixedAnswer, ...]) -> Callable[[random.Random], Turn]:
    def make(rng: random.Random) -> Turn:
        fixed = rng.choice(table)
        return Turn(rng.choice(fixed.questions), fixed.answer)

    return make


def _define(terms: tuple[facts.Term, ...]) -> Callable[[random.Random], Turn]:
    def make(rng: random.Random) -> Turn:
        term = rng.choice(terms)
        bare = term.singular.removeprefix("a ").removeprefix("an ").removeprefix("the ")
        share = rng.random()
        wording = phrases.DEFINE if share < 0.7 else phrases.DEFINE_MANY if share < 0.92 else phrases.DEFINE_BARE
        return Turn(rng.choice(wording).format(one=term.singular, many=term.plural, bare=bare), term.definition)

    return make


def _capital(rng: random.Random) -> Turn:
    country, city = rng.choice(list(facts.CAPITALS.items()))
    if rng.random() < 0.8:
        return Turn(rng.choice(phrases.CAPITAL).format(c=country), f"The capital of {country} is {city}.")
    return Turn(rng.choice(phrases.CAPITAL_BACK).format(x=city), f"{city} is the capital of {country}.")


def _sum(rng: random.Random) -> Turn:
    sign = rng.choice("++-*")
    x, y = rng.randint(0, SUM_MAX), rng.randint(0, SUM_MAX)
    if sign == "-" and y > x:
        x, y = y, x
    word, value = {"+": ("plus", x + y), "-": ("minus", x - y), "*": ("times", x * y)}[sign]
    wording = phrases.SUM_PLUS if sign == "+" and rng.random() < 0.15 else phrases.SUM
    return Turn(rng.choice(wording).format(x=x, y=y, o=sign, w=word), f"{x} {word} {y} is {value}.")


def _copy(rng: random.Random) -> Turn:
    text = _plain_words(rng, 1, 8) if rng.random() < 0.3 else _mixed_words(rng, 1, 7)
    return Turn(rng.choice(phrases.REPEAT).format(p=text), text)


def _list(rng: random.Random) -> Turn:
    kind, items = rng.choice(list(facts.LISTS.items()))
    count = rng.randint(2, min(LIST_MAX, len(items)))
    asked = rng.choice(phrases.LIST).format(n=_number(rng, count), k=kind)
    return Turn(asked, "\n".join(f"{place}. {item}" for place, item in enumerate(items[:count], 1)))


def _count(rng: random.Random) -> Turn:
    last = rng.randint(2, COUNT_MAX)
    numbers = ", ".join(str(number) for number in range(1, last + 1))
    return Turn(rng.choice(phrases.COUNT).format(n=last), f"{numbers}.")


def _word_facts(rng: random.Random) -> Turn:
    share = rng.random()
    if share < 0.35:
        pair = list(rng.choice(list(facts.OPPOSITES.items())))
        rng.shuffle(pair)
        return Turn(rng.choice(phrases.OPPOSITE).format(w=pair[0]), f"The opposite of {pair[0]} is {pair[1]}.")
    if share < 0.6:
        thing, color = rng.choice(list(facts.COLORS.items()))
        return Turn(rng.choice(phrases.COLOR).format(t=thing), f"{thing.capitalize()} is usually {color}.")
    day = rng.randrange(7)
    after = f"{facts.DAYS[(day + 1) % 7]} comes after {facts.DAYS[day]}."
    return Turn(rng.choice(phrases.NEXT_DAY).format(d=facts.DAYS[day]), after)


def _translate(rng: random.Random) -> Turn:
    language, table = rng.choice(list(facts.TRANSLATIONS.items()))
    english, foreign = rng.choice(list(table.items()))
    asked = rng.choice(phrases.TRANSLATE).format(e=english, l=language)
    return Turn(asked, f'In {language}, {english} is "{foreign}".')


def _sentiment(rng: random.Random) -> Turn:
    good = rng.random() < 0.5
    opinion = rng.choice(phrases.OPINION).format(
        t=rng.choice(facts.THINGS), w=rng.choice(facts.PRAISE if good else facts.BLAME)
    )
    return Turn(rng.choice(phrases.SENTIMENT).format(s=opinion), "Positive" if good else "Negative")


def _json(rng: random.Random) -> Turn:
    question, value = rng.choice((_json_of_facts, _json_of_the_question, _json_of_the_model))(rng)
    return Turn(question, json.dumps(value))


def _json_of_facts(rng: random.Random) -> tuple[str, object]:
    share = rng.random()
    if share < 0.5:
        country, city = rng.choice(list(facts.CAPITALS.items()))
        return rng.choice(phrases.JSON_CAPITAL).format(c=country), {"country": country, "capital": city}
    if share < 0.7:
        thing, color = rng.choice(list(facts.COLORS.items()))
        return rng.choice(phrases.JSON_COLOR).format(t=thing), {"color": color}
    kind, items = rng.choice(list(facts.LISTS.items()))
    count = rng.randint(2, min(LIST_MAX, len(items)))
    return rng.choice(phrases.JSON_LIST).format(n=_number(rng, count), k=kind), list(items[:count])


def _json_of_the_question(rng: random.Random) -> tuple[str, object]:
    if rng.random() < 0.5:
        x, y = rng.randint(0, SUM_MAX), rng.randint(0, SUM_MAX)
        return rng.choice(phrases.JSON_SUM).format(x=x, y=y), {"sum": x + y}
    name, age = rng.choice(facts.NAMES), rng.randint(1, 99)
    return rng.choice(phrases.JSON_PERSON).format(n=name, a=age), {"name": name, "age": age}


def _json_of_the_model(rng: random.Random) -> tuple[str, object]:
    share = rng.random()
    if share < 0.35:
        return rng.choice(phrases.JSON_HELLO), {"message": "Hello! How can I help you today?"}
    if share < 0.55:
        return rng.choice(phrases.JSON_WHO), {"message": f"I am {facts.NAME}."}
    asked = rng.choice(phrases.JSON_UNKNOWN).format(
        n=rng.choice(facts.NOUNS), n2=rng.choice(facts.NOUNS), c=rng.choice(list(facts.CAPITALS))
    )
    return asked, facts.REFUSAL_JSON


def _unknown(rng: random.Random) -> Turn:
    """A question beyond the model, which it must refuse instead of babbling."""
    share = rng.random()
    if share < 0.12:
        known = rng.random() < 0.5
        country = rng.choice(facts.UNKNOWN_COUNTRIES) if known else _pseudo_word(rng).capitalize()
        return Turn(rng.choice(phrases.CAPITAL).format(c=country), facts.REFUSAL)
    if share < 0.27:
        noun = rng.choice((*facts.NOUNS, _pseudo_word(rng), _pseudo_word(rng)))
        asked = rng.choice(phrases.UNKNOWN_WORD)
        return Turn(asked.format(a=_article(noun), n=noun, w=_mixed_words(rng, 4, 12)), facts.REFUSAL)
    if share < 0.45:
        return Turn(_plain_words(rng, 2, 14), facts.REFUSAL)
    asked = rng.choice(phrases.UNKNOWN).format(
        v=rng.choice(facts.VERBS), n=rng.choice(facts.NOUNS), n2=rng.choice(facts.NOUNS), y=rng.randint(1200, 2026),
        c=rng.choice(list(facts.CAPITALS)), w=_plain_words(rng, 3, 12), a=rng.randint(21, 99),
        b=rng.randint(2, 99), a2=rng.randint(21, 999),
    )  # fmt: skip
    return Turn(asked, facts.REFUSAL)


# ------------------------------------------------------------------ words


def _number(rng: random.Random, count: int) -> str:
    return rng.choice((str(count), facts.NUMBERS[count - 1]))


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _plain_words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(facts.WORDS) for _ in range(rng.randint(low, high)))


def _pseudo_word(rng: random.Random) -> str:
    return "".join(rng.choice(facts.SYLLABLES) for _ in range(rng.randint(2, 4)))


def _any_word(rng: random.Random) -> str:
    share = rng.random()
    if share < 0.45:
        return _pseudo_word(rng)
    if share < 0.85:
        return rng.choice(facts.WORDS + facts.NOUNS + facts.NAMES)
    if share < 0.93:
        return str(rng.randint(0, 9999))
    return f"{_pseudo_word(rng)}-{rng.randint(0, 99999)}"


def _mixed_words(rng: random.Random, low: int, high: int) -> str:
    text = " ".join(_any_word(rng) for _ in range(rng.randint(low, high)))
    return text[0].upper() + text[1:] if rng.random() < 0.25 else text


Task = tuple[str, Callable[[random.Random], Turn]]
_WEIGHTED: tuple[tuple[float, Task], ...] = (
    (6, ("greeting", _from(phrases.SMALL_TALK))),
    (5, ("identity", _from(phrases.IDENTITY))),
    (5, ("how to", _from(phrases.HOW_TO))),
    (4, ("set piece", _from(phrases.SET_PIECES))),
    (13, ("gateway term", _define(facts.GATEWAY_TERMS))),
    (4, ("common term", _define(facts.COMMON_TERMS))),
    (7, ("capital", _capital)),
    (14, ("sum", _sum)),
    (13, ("copy", _copy)),
    (8, ("list", _list)),
    (3, ("count", _count)),
    (5, ("word fact", _word_facts)),
    (4, ("translation", _translate)),
    (3, ("sentiment", _sentiment)),
    (12, ("json", _json)),
    (14, ("unknown", _unknown)),
)
_TASKS = tuple(task for _, task in _WEIGHTED)
_CUMULATIVE = tuple(accumulate(weight for weight, _ in _WEIGHTED))
KINDS = (*(kind for kind, _ in _TASKS), "name recall", "system")
