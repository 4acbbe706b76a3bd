"""What requests would have cost had no provider cached their prompts: their own rows, priced by their own snapshots."""

from collections.abc import Callable

from gateway.ledger.costs import Tariff
from gateway.state.entries import Entry
from gateway.whatif.case import Case
from gateway.whatif.scenarios import NO_SNAPSHOT, UNKNOWN_COST, Scenario, Verdict
from providers.messages import Usage
from providers.pricing import cost_in_nusd


def without_cache(tariff_of: Callable[[str], Tariff | None]) -> Scenario:
    """The function that judges requests.

    Args:
        tariff_of: The prices of a snapshot by its id; None where they are not known any more.
    """

    def judge(case: Case) -> Verdict:
        total = 0
        basis: Verdict = Verdict(0)
        for entry in case.entries:
            if entry.cost_in_nusd is None:
                return Verdict(None, reason=UNKNOWN_COST)
            more = extra(entry, tariff_of, case.images)
            if more is None:
                return Verdict(None, reason=NO_SNAPSHOT)
            if more:
                basis = Verdict(0, "priced" if entry.usage_source == "provider" else "estimated")
            total += entry.cost_in_nusd + more
        return Verdict(total, basis.basis)

    return judge


def extra(entry: Entry, tariff_of: Callable[[str], Tariff | None], images: int) -> int | None:
    """What one row would have cost more without its provider's cache, in nano-USD; None: nobody knows.

    The difference of two prices for the same tokens, so that it holds too where the provider said itself what it
    charged. Below 0 where writing to the cache cost more than it saved.
    """
    if not entry.cached_tokens and not entry.cache_write_tokens:
        return 0
    tariff = tariff_of(entry.price_id)
    if tariff is None:
        return None
    now_utc = Case((entry,), None, None).now_utc
    with_cache = Usage(
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cached_input_tokens=entry.cached_tokens,
        cache_write_tokens=entry.cache_write_tokens,
    )
    without = Usage(input_tokens=entry.input_tokens, output_tokens=entry.output_tokens)
    before = cost_in_nusd(tariff.price, tariff.overrides, with_cache, now_utc, images=images)
    after = cost_in_nusd(tariff.price, tariff.overrides, without, now_utc, images=images)
    return None if before is None or after is None else after - before
