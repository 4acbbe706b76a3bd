"""What OpenRouter's clients are told of routing: `openrouter_metadata` when they ask, `availability` when nobody can.

Shapes: https://openrouter.ai/docs/api-reference/errors-and-debugging. Pure: values in, JSON values out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.attempts import Attempt
from gateway.config.catalogue import NAME_SUFFIXES, Catalogue
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.compression import Compressed
from gateway.routing.exclusion import Exclusion
from gateway.routing.plugins import MIDDLE_OUT
from gateway.routing.resolve import SHOWN_CHARS_MAX
from providers.messages import ChatRequest
from providers.parameters import COMPRESSION

LISTED_MAX: Final = 64
"""Endpoints, providers or names in one list of an answer."""
DETAIL_MAX_CHARS: Final = 300

_ANSWERING: Final = ("ok", "running")
_OK: Final = 200
_CANCELLED: Final = 499
_FAILED: Final = 502
_TIMED_OUT: Final = 504
_TIMEOUTS: Final = ("first_token_timeout", "provider_stalled")

_NOT_ABOUT_THE_REQUEST: Final = frozenset({"retired", "off", "disabled"})
_PRIVACY: Final = frozenset({"data_collection", "zdr"})
_FILTERS: Final[Mapping[str, tuple[str, str]]] = {
    "region": ("data_region", "provider.only"),
    "zdr": ("data_policy:zdr", "provider.zdr"),
    "data_collection": ("data_policy:training", "provider.data_collection"),
    "max_price": ("max_price", "provider.max_price"),
    "not_free": ("max_price", "model"),
    "context": ("context_length", "messages"),
    "output_limit": ("context_length", "max_tokens"),
    "parameters": ("require_parameters", "provider.require_parameters"),
    "quantization": ("quantization", "provider.quantizations"),
    "only": ("allowed_providers", "provider.only"),
    "ignored": ("allowed_providers", "provider.ignore"),
    "no_fallbacks": ("allowed_providers", "provider.allow_fallbacks"),
    "not_permitted": ("allowed_providers", "model"),
    "distillable": ("distillable", "provider.enforce_distillable_text"),
    "no_tools": ("require_parameters", "tools"),
    "no_json_object": ("require_parameters", "response_format"),
    "no_json_schema": ("require_parameters", "response_format"),
    "no_logprobs": ("require_parameters", "logprobs"),
    "no_vision": ("input_modalities", "messages"),
    "no_prefill": ("require_parameters", "messages"),
}
"""By code of an Exclusion: OpenRouter's word in `excluded_by` (our own where it has none), and the member at fault."""


def openrouter_metadata(
    plan: Plan, attempts: Sequence[Attempt], *, requested: str, compressed: Compressed | None = None
) -> dict[str, Any]:
    """`openrouter_metadata` of an answer, or of an error after Attempts.

    Args:
        plan: Who could answer.
        attempts: Who was asked, in order; the last one answered unless it failed.
        requested: The first name that the client asked for, as it wrote it.
        compressed: What was cut out of the prompt to make it fit, if anything was.
    """
    last = attempts[-1] if attempts else None
    winner = last if last is not None and last.outcome in _ANSWERING else None
    chosen = None if winner is None else winner.endpoint
    seats = (*plan.candidates, *plan.resting)
    metadata: dict[str, Any] = {
        "requested": requested,
        "strategy": _strategy(plan, requested, winner),
        "region": None if chosen is None else chosen.region,
        "summary": f"available={len(seats)}, selected={'none' if chosen is None else chosen.provider}",
        "attempt": max(1, len(attempts)),
        "is_byok": False,
        "endpoints": {
            "total": len(seats) + len(plan.excluded),
            "available": [
                {
                    "provider": seat.endpoint.provider,
                    "model": seat.endpoint.model,
                    "selected": chosen is not None and seat.endpoint.id == chosen.id,
                }
                for seat in seats[:LISTED_MAX]
            ],
        },
        "params": {},
        "attempts": [
            {"provider": one.endpoint.provider, "model": one.endpoint.model, "status": _status(one)} for one in attempts
        ],
        "pipeline": [] if compressed is None else _pipeline(compressed),
    }
    if winner is not None and winner.outcome == "ok":
        metadata["generation_time"] = round(winner.duration_s * 1000)
    return metadata


def availability(
    excluded: Sequence[Exclusion],
    *,
    requested: Sequence[str],
    resting: Sequence[Candidate] = (),
    now_s: float = 0.0,
    fallbacks: Sequence[str] = (),
) -> dict[str, Any]:
    """`error.availability` where nobody is left to answer.

    Args:
        excluded: Who was left out, and why.
        requested: The names that the client asked for.
        resting: Who could answer, but has to be left alone now; soonest back first.
        now_s: The monotonic clock that `resting` was observed by.
        fallbacks: Names that the client may ask for instead.
    """
    reasons = [one for one in excluded if one.code not in _NOT_ABOUT_THE_REQUEST]
    affected = [one.endpoint.partition("/")[0] for one in excluded] + [one.endpoint.provider for one in resting]
    said: dict[str, Any] = {
        "code": _code(excluded, {one.code for one in reasons}, resting),
        "retryable": bool(resting),
        "retry_after": _retry_after(resting, now_s),
        "requested_models": list(requested[:LISTED_MAX]),
        "affected_providers": list(dict.fromkeys(affected))[:LISTED_MAX],
        "excluded_by": list(dict.fromkeys(_word(one.code) for one in reasons)),
        "fallback_models": list(fallbacks[:LISTED_MAX]),
    }
    if reasons and not resting:
        common = Counter(one.code for one in reasons).most_common(1)[0][0]
        first = next(one for one in reasons if one.code == common)
        field = _FILTERS.get(common, (common, "model"))[1]
        detail = f"{first.endpoint}: {first.reason}"
        said["constraint"] = {"field": field, "detail": detail[:DETAIL_MAX_CHARS]}
    return said


def unknown_model(request: ChatRequest, catalogue: Catalogue) -> dict[str, Any]:
    """`error.availability` where nothing has one of the names asked for; it offers those that may have been meant."""
    names = names_of(request)
    unknown = next((name for name in names if catalogue.find_route(name) is None), None)
    shown = [name[:SHOWN_CHARS_MAX] for name in names]
    near = () if unknown is None else catalogue.near_names(unknown[:SHOWN_CHARS_MAX])
    return {**availability((), requested=shown, fallbacks=near), "code": "model_not_found"}


def names_of(request: ChatRequest) -> tuple[str, ...]:
    """The models that are asked for, in order and each once, as the client wrote them; none where it named none."""
    return tuple(dict.fromkeys(name for name in (request.model, *(request.models or ())) if name))


def _strategy(plan: Plan, requested: str, winner: Attempt | None) -> str:
    if winner is not None:
        stage = next((one.stage for one in plan.candidates if one.endpoint.id == winner.endpoint.id), 0)
        if stage:
            return "fallback"
    if requested.endswith(":free"):
        return "free"
    plain = next((requested.removesuffix(end) for end in NAME_SUFFIXES if requested.endswith(end)), requested)
    return "direct" if plan.route in (requested, plain) else "alias"


def _status(attempt: Attempt) -> int:
    """An HTTP status for an Attempt, which must have one there, whatever became of it."""
    if attempt.outcome in _ANSWERING:
        return _OK
    if attempt.upstream_status is not None and attempt.upstream_status != _OK:
        return attempt.upstream_status
    if attempt.outcome == "cancelled":
        return _CANCELLED
    return _TIMED_OUT if attempt.code in _TIMEOUTS else _FAILED


def _pipeline(compressed: Compressed) -> list[dict[str, Any]]:
    dropped, cut = compressed.dropped_messages, compressed.cut_texts
    if not dropped and not cut:
        return []
    return [
        {
            "type": "context_compression",
            "name": COMPRESSION,
            "summary": f"{dropped} messages left out, {cut} texts cut",
            "cost_usd": 0,
            "data": {"engine": MIDDLE_OUT, "dropped_messages": dropped, "cut_texts": cut},
        }
    ]


def _code(excluded: Sequence[Exclusion], reasons: set[str], resting: Sequence[Candidate]) -> str:
    if resting:
        parked = all(one.observation.standing == "parked" for one in resting)
        return "capacity_exhausted" if parked else "temporarily_unavailable"
    if not reasons:
        retired = bool(excluded) and all(one.code == "retired" for one in excluded)
        return "model_deprecated" if retired else "no_endpoints"
    if reasons <= _PRIVACY:
        return "privacy_restricted"
    if reasons == {"region"}:
        return "region_restricted"
    return "free_variant_ended" if reasons == {"not_free"} else "constraint_filtered"


def _word(code: str) -> str:
    return _FILTERS.get(code, (code, ""))[0]


def _retry_after(resting: Sequence[Candidate], now_s: float) -> int | None:
    """Whole seconds until the first of them may be asked again, at least one."""
    if not resting:
        return None
    soonest_s = min(one.observation.until_s for one in resting) - now_s
    return max(1, math.ceil(soonest_s))
