"""From the Trace of a request to the spans of OpenTelemetry: one for the request, and one for each of its Attempts.

Names and attributes are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/; what it has no word for is under
`mixgate.`. Built in the standard's own protobuf types: by way of the library's spans it takes five times as long.
Importing this imports them.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.attempts import Attempt
from gateway.explain.trace import Trace
from gateway.trace_context import TraceContext, span_id
from providers.base import Endpoint

CHAT: Final = "chat"
PLACES_MAX: Final = 1024
KNOWN_MAX: Final = 4096
"""Endpoints whose attributes are kept."""
# The generated modules have no types.
_common: Final[Any] = import_module("opentelemetry.proto.common.v1.common_pb2")
_trace: Final[Any] = import_module("opentelemetry.proto.trace.v1.trace_pb2")
gen_ai: Final[Any] = import_module("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
_KeyValue: Final[Any] = _common.KeyValue
_AnyValue: Final[Any] = _common.AnyValue
_Span: Final[Any] = _trace.Span
_SERVER: Final[int] = _Span.SPAN_KIND_SERVER
_CLIENT: Final[int] = _Span.SPAN_KIND_CLIENT
_SAMPLED_HERE: Final = 0x101
"""W3C's flag, and that it is known that the parent is of this process."""
_SAMPLED_ELSEWHERE: Final = 0x301
_NS_PER_S: Final = 10**9


def text(key: str, value: str) -> Any:
    """An attribute that is a text."""
    return _KeyValue(key=key, value=_AnyValue(string_value=value))


def number(key: str, value: int) -> Any:
    """An attribute that is a whole number."""
    return _KeyValue(key=key, value=_AnyValue(int_value=value))


class SpanMaker:
    """Makes spans. For one thread."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Endpoint, list[Any]]] = {}

    def spans_of(self, trace: Trace, context: TraceContext) -> list[Any]:
        """The spans of one request, its own last."""
        trace_id, began_ns = bytes.fromhex(context.trace_id), int(trace.unix_s * _NS_PER_S)
        own_id = bytes.fromhex(span_id(trace.id, 0))
        spans: list[Any] = []
        for attempt in trace.attempts:
            start_ns = began_ns + _ns(attempt.started_s - trace.now_s)
            spans.append(
                _Span(
                    trace_id=trace_id,
                    span_id=bytes.fromhex(span_id(trace.id, attempt.number)),
                    parent_span_id=own_id,
                    name=f"{CHAT} {attempt.endpoint.upstream_model}",
                    kind=_CLIENT,
                    start_time_unix_nano=start_ns,
                    end_time_unix_nano=start_ns + _ns(attempt.duration_s),
                    attributes=[*self._of(attempt.endpoint), *_of_attempt(trace, attempt)],
                    status=_status(attempt.outcome, attempt.code),
                    flags=_SAMPLED_HERE,
                )
            )
        spans.append(
            _Span(
                trace_id=trace_id,
                span_id=own_id,
                parent_span_id=b"" if context.parent_id is None else bytes.fromhex(context.parent_id),
                name=f"{CHAT} {trace.plan.route}",
                kind=_SERVER,
                start_time_unix_nano=began_ns,
                end_time_unix_nano=began_ns + _ns(trace.ended_s - trace.now_s),
                attributes=_of_request(trace),
                status=_status(trace.outcome, trace.code),
                flags=_SAMPLED_HERE if context.parent_id is None else _SAMPLED_ELSEWHERE,
            )
        )
        return spans

    def _of(self, endpoint: Endpoint) -> list[Any]:
        """What is the same for all Attempts at an Endpoint."""
        known = self._known.get(endpoint.id)
        if known is None or known[0] is not endpoint:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            attributes = [text(key, value) for key, value in names_of(endpoint).items()]
            address, port = place_of(endpoint.base_url)
            if address:
                attributes += [text(SERVER_ADDRESS, address), number(SERVER_PORT, port)]
            attributes.append(text("mixgate.endpoint", endpoint.id))
            known = self._known[endpoint.id] = (endpoint, attributes)
        return known[1]


def names_of(endpoint: Endpoint) -> dict[str, str]:
    """Whom an Attempt asks for what."""
    return {
        gen_ai.GEN_AI_OPERATION_NAME: CHAT,
        gen_ai.GEN_AI_PROVIDER_NAME: endpoint.provider,
        gen_ai.GEN_AI_REQUEST_MODEL: endpoint.upstream_model,
        gen_ai.GEN_AI_RESPONSE_MODEL: endpoint.model,
    }


@lru_cache(PLACES_MAX)
def place_of(base_url: str) -> tuple[str, int]:
    """Address and port of a provider. The local worker is nowhere."""
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _of_attempt(trace: Trace, attempt: Attempt) -> list[Any]:
    attributes = [
        _flag(gen_ai.GEN_AI_REQUEST_STREAM, trace.ask.stream),
        number("mixgate.attempt", attempt.number),
        text("mixgate.attempt.why", attempt.why),
        text("mixgate.attempt.outcome", attempt.outcome),
    ]
    if attempt.outcome != "ok":
        attributes.append(text(ERROR_TYPE, attempt.code or attempt.outcome))
    if attempt.upstream_id is not None:
        attributes.append(text(gen_ai.GEN_AI_RESPONSE_ID, attempt.upstream_id))
    if attempt.upstream_status is not None:
        attributes.append(number("http.response.status_code", attempt.upstream_status))
    if attempt.ttft_s is not None:
        attributes.append(
            _KeyValue(
                key=gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, value=_AnyValue(double_value=float(attempt.ttft_s))
            )
        )
    if attempt.cost_in_nusd is not None:
        attributes.append(number("mixgate.cost_in_nusd", attempt.cost_in_nusd))
    if attempt.cost_source is not None:
        attributes.append(text("mixgate.cost.source", attempt.cost_source))
    return attributes + _of_usage(attempt)


def _of_request(trace: Trace) -> list[Any]:
    attributes = [
        text(gen_ai.GEN_AI_OPERATION_NAME, CHAT),
        text(gen_ai.GEN_AI_REQUEST_MODEL, trace.plan.route),
        _flag(gen_ai.GEN_AI_REQUEST_STREAM, trace.ask.stream),
        text(gen_ai.GEN_AI_RESPONSE_ID, trace.id),
        text("mixgate.policy", trace.plan.policy),
        text("mixgate.surface", trace.surface),
        text("mixgate.outcome", trace.outcome),
        number("mixgate.attempts", len(trace.attempts)),
    ]
    if trace.ask.output_tokens is not None:
        attributes.append(number(gen_ai.GEN_AI_REQUEST_MAX_TOKENS, trace.ask.output_tokens))
    if trace.caller is not None:
        attributes.append(text("mixgate.caller", trace.caller))
    if trace.cost_in_nusd is not None:
        attributes.append(number("mixgate.cost_in_nusd", trace.cost_in_nusd))
    if trace.outcome != "ok":
        attributes.append(text(ERROR_TYPE, trace.code or trace.outcome))
    if trace.rescued is not None:
        attributes.append(text("mixgate.rescued.by", trace.rescued.by))
    if trace.cached is not None:
        attributes.append(_flag("mixgate.cached", value=True))
    last = _who_answered(trace.attempts)
    if last is not None:
        attributes += [
            text(gen_ai.GEN_AI_PROVIDER_NAME, last.endpoint.provider),
            text(gen_ai.GEN_AI_RESPONSE_MODEL, last.endpoint.model),
            text("mixgate.endpoint", last.endpoint.id),
            *_of_usage(last),
        ]
    return attributes


def _who_answered(attempts: Sequence[Attempt]) -> Attempt | None:
    good = [one for one in attempts if one.outcome == "ok"]
    return good[-1] if good else attempts[-1] if attempts else None


def _of_usage(attempt: Attempt) -> list[Any]:
    usage = attempt.usage
    if usage is None:
        return []
    counts = (
        (gen_ai.GEN_AI_USAGE_INPUT_TOKENS, usage.input_tokens),
        (gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS, usage.output_tokens),
        (gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cached_input_tokens),
        (gen_ai.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, usage.cache_write_tokens),
        (gen_ai.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning_tokens),
    )
    return [number(key, count) for key, count in counts if count is not None]


def _flag(key: str, value: bool) -> Any:  # noqa: FBT001  # it is the value of an attribute
    return _KeyValue(key=key, value=_AnyValue(bool_value=value))


def _status(outcome: str, code: str | None) -> Any:
    """Of an error its code alone: what a provider says may quote what it was asked."""
    if outcome != "failed":
        return None
    return _trace.Status(code=_trace.Status.STATUS_CODE_ERROR, message=code or "")


def _ns(seconds: float) -> int:
    return max(0, int(seconds * _NS_PER_S))
