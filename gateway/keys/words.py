"""Refusals of keys' limits as errors for clients: what is spent or used up, whose it is, and when it comes back."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from gateway.errors import BudgetHeldError, QuotaError, RateLimitError
from gateway.keys.budget import span_end
from gateway.keys.key import Window
from gateway.keys.limits import Limited
from gateway.keys.purse import Refusal

HELD_RETRY_S: Final = 1.0
"""When to come back where the rest of a budget is reserved: most answers cost less than was reserved for them."""
_NUSD_PER_USD: Final = 10**9
_EACH: Final[dict[Window, str]] = {
    "day": "for this day",
    "week": "for this week",
    "month": "for this month",
    "ever": "",
}


def quota_error(refusal: Refusal, key_id: str, unix_s: float) -> QuotaError | BudgetHeldError:
    """Why nothing can be afforded.

    Args:
        refusal: As the purse gave it.
        key_id: The key that asked.
        unix_s: Now.
    """
    one = refusal.standing
    whose = "This client key's" if one.key_id == key_id else f"The team's ({one.key_id})"
    wanted = "no price is known" if refusal.wanted_in_nusd is None else f"at least {usd(refusal.wanted_in_nusd)}"
    end = span_end(one.window, unix_s)
    back = "" if end is None else f" It begins anew at {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC."
    budget = " ".join(filter(None, (f"{whose} budget of {usd(one.budget_in_nusd)}", _EACH[one.window])))
    said = (
        f"{budget} does not suffice: {usd(one.spent_in_nusd)} spent, {usd(one.reserved_in_nusd)} reserved for requests "
        f"on their way, and this request takes {wanted}."
    )
    if refusal.final:
        return QuotaError(said + back)
    return BudgetHeldError(f"{said} Ask again in a moment.", retry_after_s=HELD_RETRY_S)


def rate_error(limited: Limited, key_id: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> RateLimitError:
    """Why a request is not let in now.

    Args:
        limited: As the limiter gave it.
        key_id: The key that asked.
        headers: `rate_headers` of what is left.
    """
    whose = "this client key" if limited.key_id == key_id else f"the team {limited.key_id}"
    what = "requests at the same time" if limited.kind == "concurrency" else f"{limited.kind} per minute"
    if limited.retry_after_s is None:
        said = f"{whose} may use {limited.limit} {what}, and this request alone takes {limited.wanted}; ask for less"
    else:
        said = f"{whose} may use {limited.limit} {what}; ask again in {limited.retry_after_s:.1f} s"
    return RateLimitError(said, retry_after_s=limited.retry_after_s, headers=headers)


def usd(amount_in_nusd: int) -> str:
    """`$1.5`: exact, without zeros at the end."""
    sign, amount = ("-", -amount_in_nusd) if amount_in_nusd < 0 else ("", amount_in_nusd)
    whole, rest = divmod(amount, _NUSD_PER_USD)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{sign}${whole}.{fraction.ljust(2, '0')}"
