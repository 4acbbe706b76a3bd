"""From the Trace of a request to the spans of OpenTelemetry: one for the request, and one for each of its Attempts.

Names and attributes are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/; what it has no word for is under
`mixgate.`. Importing this imports the library.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv._incubating.attributes import (  # pyright: ignore[reportMissingTypeStubs]
    gen_ai_attributes as gen_ai,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.attempts import Attempt
from gateway.explain.trace import Trace
from gateway.trace_context import TraceContext, span_id

Attributes: TypeAlias = dict[str, str | int | float | bool]
CHAT: Final = "chat"
PLACES_MAX: Final = 1024
SCOPE: Final = InstrumentationScope("mixgate")
_NS_PER_S: Final = 10**9
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_OK: Final = Status(StatusCode.UNSET)


def spans_of(trace: Trace, context: TraceContext, resource: Resource) -> list[ReadableSpan]:
    """The spans of one request, its own last."""
    trace_id, began_ns = int(context.trace_id, 16), int(trace.unix_s * _NS_PER_S)
    own = SpanContext(trace_id, int(span_id(trace.id, 0), 16), is_remote=False, trace_flags=_SAMPLED)
    spans = [_attempt_span(trace, attempt, own, began_ns, resource) for attempt in trace.attempts]
    parent = None
    if context.parent_id is not None:
        parent = SpanContext(trace_id, int(context.parent_id, 16), is_remote=True, trace_flags=_SAMPLED)
    spans.append(
        ReadableSpan(
            f"{CHAT} {trace.plan.route}",
            own,
            parent,
            resource,
            _request_attributes(trace),
            kind=SpanKind.SERVER,
            status=_status(trace.outcome, trace.code),
            start_time=began_ns,
            end_time=began_ns + _ns(trace.ended_s - trace.now_s),
            instrumentation_scope=SCOPE,
        )
    )
    return spans


def attempt_attributes(attempt: Attempt) -> Attributes:
    """What tells one kind of Attempt from another: few values each, so good for metrics too."""
    endpoint = attempt.endpoint
    attributes: Attributes = {
        gen_ai.GEN_AI_OPERATION_NAME: CHAT,
        gen_ai.GEN_AI_PROVIDER_NAME: endpoint.provider,
        gen_ai.GEN_AI_REQUEST_MODEL: endpoint.upstream_model,
        gen_ai.GEN_AI_RESPONSE_MODEL: endpoint.model,
        **_place(endpoint.base_url),
    }
    if attempt.outcome != "ok":
        attributes[ERROR_TYPE] = attempt.code or attempt.outcome
    return attributes


def _attempt_span(
    trace: Trace, attempt: Attempt, parent: SpanContext, began_ns: int, resource: Resource
) -> ReadableSpan:
    number = int(span_id(trace.id, attempt.number), 16)
    start_ns = began_ns + _ns(attempt.started_s - trace.now_s)
    return ReadableSpan(
        f"{CHAT} {attempt.endpoint.upstream_model}",
        SpanContext(parent.trace_id, number, is_remote=False, trace_flags=_SAMPLED),
        parent,
        resource,
        _attempt_attributes(trace, attempt),
        kind=SpanKind.CLIENT,
        status=_status(attempt.outcome, attempt.code),
        start_time=start_ns,
        end_time=start_ns + _ns(attempt.duration_s),
        instrumentation_scope=SCOPE,
    )


def _attempt_attributes(trace: Trace, attempt: Attempt) -> Attributes:
    attributes = attempt_attributes(attempt)
    attributes[gen_ai.GEN_AI_REQUEST_STREAM] = trace.ask.stream
    attributes["mixgate.endpoint"] = attempt.endpoint.id
    attributes["mixgate.attempt"] = attempt.number
    attributes["mixgate.attempt.why"] = attempt.why
    attributes["mixgate.attempt.outcome"] = attempt.outcome
    _add(attributes, gen_ai.GEN_AI_RESPONSE_ID, attempt.upstream_id)
    _add(attributes, "http.response.status_code", attempt.upstream_status)
    _add(attributes, gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, attempt.ttft_s)
    _add(attributes, "mixgate.cost_in_nusd", attempt.cost_in_nusd)
    _add(attributes, "mixgate.cost.source", attempt.cost_source)
    _add_usage(attributes, attempt)
    return attributes


def _request_attributes(trace: Trace) -> Attributes:
    attributes: Attributes = {
        gen_ai.GEN_AI_OPERATION_NAME: CHAT,
        gen_ai.GEN_AI_REQUEST_MODEL: trace.plan.route,
        gen_ai.GEN_AI_REQUEST_STREAM: trace.ask.stream,
        gen_ai.GEN_AI_RESPONSE_ID: trace.id,
        "mixgate.route": trace.plan.route,
        "mixgate.policy": trace.plan.policy,
        "mixgate.surface": trace.surface,
        "mixgate.outcome": trace.outcome,
        "mixgate.attempts": len(trace.attempts),
    }
    _add(attributes, gen_ai.GEN_AI_REQUEST_MAX_TOKENS, trace.ask.output_tokens)
    _add(attributes, "mixgate.caller", trace.caller)
    _add(attributes, "mixgate.cost_in_nusd", trace.cost_in_nusd)
    _add(attributes, ERROR_TYPE, trace.code or (None if trace.outcome == "ok" else trace.outcome))
    last = _who_answered(trace.attempts)
    if last is not None:
        attributes[gen_ai.GEN_AI_PROVIDER_NAME] = last.endpoint.provider
        attributes[gen_ai.GEN_AI_RESPONSE_MODEL] = last.endpoint.model
        attributes["mixgate.endpoint"] = last.endpoint.id
        _add_usage(attributes, last)
    if trace.rescued is not None:
        attributes["mixgate.rescued.by"] = trace.rescued.by
    return attributes


def _who_answered(attempts: Sequence[Attempt]) -> Attempt | None:
    good = [one for one in attempts if one.outcome == "ok"]
    return good[-1] if good else attempts[-1] if attempts else None


def _add_usage(attributes: Attributes, attempt: Attempt) -> None:
    usage = attempt.usage
    if usage is not None:
        _add(attributes, gen_ai.GEN_AI_USAGE_INPUT_TOKENS, usage.input_tokens)
        _add(attributes, gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS, usage.output_tokens)
        _add(attributes, gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cached_input_tokens)
        _add(attributes, gen_ai.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, usage.cache_write_tokens)
        _add(attributes, gen_ai.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning_tokens)


def _add(attributes: Attributes, name: str, value: Any) -> None:
    if value is not None:
        attributes[name] = value


def _status(outcome: str, code: str | None) -> Status:
    """Of an error its code alone: what a provider says may quote what it was asked."""
    return Status(StatusCode.ERROR, code) if outcome == "failed" else _OK


def _ns(seconds: float) -> int:
    return max(0, int(seconds * _NS_PER_S))


@lru_cache(PLACES_MAX)
def _place(base_url: str) -> dict[str, str | int]:
    """Where a provider is. The local worker is nowhere."""
    parts = urlsplit(base_url)
    if not parts.hostname:
        return {}
    return {SERVER_ADDRESS: parts.hostname, SERVER_PORT: parts.port or (443 if parts.scheme == "https" else 80)}
