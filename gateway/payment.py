"""How an issued key pays for one request: what it may use, what an answer may cost it, and a hold for each Attempt."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.decision import Decision
from gateway.errors import KeysUnavailableError, QuotaError, RefusalError
from gateway.keys.budget import Offer
from gateway.keys.key import STRICTNESS
from gateway.keys.purse import Grant, Refusal
from gateway.keys.ring import NO_GRANTS, Grants, KeyRing
from gateway.keys.words import quota_error
from gateway.routing.ask import Ask, Preferences, PriceLimit
from gateway.routing.candidate import Candidate
from gateway.routing.costs import price_now
from gateway.routing.eligible import OUTPUT_UNKNOWN_TOKENS
from gateway.routing.table import UNBOUNDED, Row, Table
from gateway.sharing.base import Budgets, Later
from providers.messages import ChatRequest
from providers.tokens import IMAGE_TOKENS

WORDS_TOKENS: Final = 256
"""What a template, or asking for tools in words, adds to a prompt."""
_encode: Final = msgspec.json.Encoder().encode


class Till:
    """Where issued keys pay: what each may use, and what it may spend on a request.

    Args:
        ring: The keys.
        budgets: Their money.
    """

    __slots__ = ("_budgets", "_ring")

    def __init__(self, ring: KeyRing, budgets: Budgets) -> None:
        self._ring = ring
        self._budgets = budgets

    def grants(self, key_id: str) -> Grants:
        """What a key may use; everything for callers without one."""
        return self._ring.grants(key_id) if key_id else NO_GRANTS

    async def pay(self, decision: Decision, key_id: str, generation_id: str) -> "Payment":
        """Set aside what a request may cost by what was decided for it. Cancelled, nothing stays set aside.

        Raises:
            QuotaError: The key's budget, or its team's, is spent.
            BudgetHeldError: The rest of it is reserved for other requests.
            KeysUnavailableError: Nobody knows what was spent before, or whoever does cannot be asked.
        """
        unix_s, ask, plan = decision.unix_s, decision.ask, decision.plan
        offers: list[Offer] = []
        if self._budgets.has_budget(key_id):
            offers = offers_of(
                (*plan.candidates, *plan.resting),
                decision.target.table,
                ask,
                prompt_tokens=most_prompt_tokens(decision.request, ask.images),
                choices=decision.request.n or 1,
                now_utc=decision.now_utc or datetime.fromtimestamp(unix_s, tz=UTC),
            )
        total_s = decision.target.limits.total_timeout_s
        return await reserve(
            self._budgets, key_id, generation_id, offers, unix_s=unix_s, now_s=decision.now_s, total_s=total_s
        )


def shortened(request: ChatRequest, output_tokens: int) -> ChatRequest:
    """The request with an answer of at most so many tokens."""
    asked = request.output_limit_tokens
    most = output_tokens if asked is None else min(asked, output_tokens)
    if request.max_completion_tokens is not None:
        return replace(request, max_completion_tokens=most)
    return replace(request, max_tokens=most)


def permitted_of(grants: Grants, table: Table) -> tuple[str, ...] | None:
    """For `Ask.permitted`: the Endpoints that a key may use; None: all.

    A key that names models and providers may use what both allow.
    """
    if grants.models is None and grants.providers is None:
        return None
    models = None if grants.models is None else frozenset(grants.models)
    return tuple(
        [
            row.id
            for row in table.merged.rows
            if (models is None or not models.isdisjoint(row.names))
            and (grants.providers is None or row.provider in grants.providers)
        ]
    )


def preferences_within(preferences: Preferences, grants: Grants) -> Preferences:
    """What the client prefers, and no more than its key grants."""
    if grants.data == "any" and grants.input_max_in_pusd is None and grants.output_max_in_pusd is None:
        return preferences
    asked = preferences.max_price or PriceLimit()
    limit = replace(
        asked,
        input_in_pusd=_lower(asked.input_in_pusd, grants.input_max_in_pusd),
        output_in_pusd=_lower(asked.output_in_pusd, grants.output_max_in_pusd),
    )
    return replace(
        preferences,
        max_price=None if limit == PriceLimit() else limit,
        data_collection="deny" if STRICTNESS[grants.data] else preferences.data_collection,
        zdr=preferences.zdr or grants.data == "nothing_kept",
    )


def most_prompt_tokens(request: ChatRequest, images: int) -> int:
    """More tokens than the prompt has for any tokenizer: a token has at least one byte of its text.

    The JSON around the texts stands for what a template puts there.
    """
    parts = (request.messages, request.tools, request.functions, request.response_format)
    return len(_encode(parts)) + images * IMAGE_TOKENS


def offers_of(
    seats: Sequence[Candidate], table: Table, ask: Ask, *, prompt_tokens: int, choices: int, now_utc: datetime
) -> list[Offer]:
    """The most that an answer may cost at each Endpoint of a Plan.

    Args:
        seats: In the order in which they would be asked, those that rest last.
        table: With their rows.
        ask: What is asked of routing.
        prompt_tokens: No prompt has more: an exact count, or its UTF-8 bytes.
        choices: Answers asked for at once (`n`), each of which is billed.
        now_utc: Of the decision: prices may depend on the time of day.
    """
    rows = {row.id: row for row in table.merged.rows}
    return [_offer(rows[seat.endpoint.id], ask, prompt_tokens, choices, now_utc) for seat in seats]


def _offer(row: Row, ask: Ask, prompt_tokens: int, choices: int, now_utc: datetime) -> Offer:
    room = row.context_tokens - ask.prompt_tokens
    if ask.output_tokens is None:
        # Its provider is told a length that nobody asked for: one that fits by the provider's own count of the prompt.
        room = max(row.context_tokens - prompt_tokens - WORDS_TOKENS, room // 2)
    longest = min(ask.output_tokens or UNBOUNDED, row.output_max_tokens, room)
    if longest > UNBOUNDED // 2:
        longest = OUTPUT_UNKNOWN_TOKENS
    longest = max(0, longest)
    # By the longest prompt that it could be, as longer ones never cost less per token.
    price = price_now(row.tariff, prompt_tokens, now_utc)
    if price is None or price.input_in_pusd is None or price.output_in_pusd is None:
        return Offer(row.id, None, 0, longest)
    # Writing to a provider's cache may cost more than reading the prompt anew.
    per_token = max(price.input_in_pusd, price.cache_write_in_pusd or 0)
    fixed = prompt_tokens * per_token + (price.request_in_pusd or 0) + ask.images * (price.image_in_pusd or 0)
    return Offer(row.id, fixed, price.output_in_pusd * choices, longest)


def _lower(asked: int | None, granted: int | None) -> int | None:
    if asked is None or granted is None:
        return granted if asked is None else asked
    return min(asked, granted)


class Payment(Struct, frozen=True):
    """What one request may spend, and who pays."""

    budgets: Budgets
    grant: Grant
    key_id: str
    worst: dict[str, int]
    """By Endpoint, what an Attempt on it costs at most, in nano-USD. Others have no price that is known."""
    longest: dict[str, int]
    """By Endpoint, how long its answer may be for that. Empty where no budget bounds the key."""

    def bounded(self, request: ChatRequest, endpoint_id: str) -> ChatRequest:
        """The request as this Endpoint is asked it: with an answer of no more than it was granted."""
        longest = self.longest.get(endpoint_id)
        return request if longest is None else shortened(request, longest)

    def within(self, request: ChatRequest, ask: Ask) -> tuple[ChatRequest, Ask]:
        """The same as the budget lets it be decided.

        Where the client names no length, each Endpoint is told one of its own, so that none is left out for what
        another one could say.
        """
        most = self.grant.output_tokens_max
        if most is not None and request.output_limit_tokens is None:
            most = min(self.longest.values(), default=most)
        elif most is not None:
            request = shortened(request, most)
            most = request.output_limit_tokens
        return request, replace(ask, output_tokens=most, budget_in_nusd=self.grant.left_in_nusd)

    def hold(self, attempt_id: str, endpoint_id: str, unix_s: float) -> RefusalError | Later | None:
        """An Attempt is about to be sent. The error says why it cannot be afforded, and so must not be.

        Where somebody else has to be asked, it gives what `answer_later` takes.
        """
        worst = self.worst.get(endpoint_id)
        if worst is None and self.grant.left_in_nusd is not None:
            return QuotaError(f"nobody knows the price of {endpoint_id}, so it cannot be kept within a budget")
        refused = self.budgets.hold(self.grant.id, attempt_id, worst or 0, unix_s=unix_s)
        return quota_error(refused, self.key_id, unix_s) if isinstance(refused, Refusal) else refused

    async def answer_later(self, later: Later, unix_s: float) -> RefusalError | None:
        """What the answer is that `hold` could not give at once."""
        try:
            refused = await later
        except KeysUnavailableError as error:
            return error
        return None if refused is None else quota_error(refused, self.key_id, unix_s)

    def settle(self, attempt_id: str, cost_in_nusd: int | None) -> None:
        """It is over, and cost so much. Idempotent."""
        self.budgets.settle(self.grant.id, attempt_id, cost_in_nusd)

    def release(self) -> None:
        """The request is over. Idempotent."""
        self.budgets.release(self.grant.id)


async def reserve(
    budgets: Budgets,
    key_id: str,
    generation_id: str,
    offers: Sequence[Offer],
    *,
    unix_s: float,
    now_s: float,
    total_s: float,
) -> Payment:
    """Set aside what a request may cost.

    Raises:
        QuotaError: The key's budget, or its team's, is spent.
        BudgetHeldError: The rest of it is reserved for other requests.
        KeysUnavailableError: Nobody knows what was spent before, or whoever does cannot be asked.
    """
    found = await budgets.reserve(generation_id, key_id, offers, unix_s=unix_s, now_s=now_s, total_s=total_s)
    if isinstance(found, Refusal):
        raise quota_error(found, key_id, unix_s)
    most = found.output_tokens_max
    priced = [one for one in offers if one.fixed_in_pusd is not None]
    worst = {one.endpoint: one.worst_in_nusd(one.output_tokens if most is None else most) for one in priced}
    longest = {} if most is None else {one.endpoint: min(most, one.output_tokens) for one in priced}
    return Payment(budgets, found, key_id, worst, longest)
