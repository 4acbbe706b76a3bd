"""What Mistral is sent, judged by its published schema, its own client's types, and its own order of messages."""

import json
import os
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest as ServedRequest
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistralai.client.models import ChatCompletionRequest as ClientRequest

from providers.base import Capabilities, Endpoint
from providers.messages import ChatRequest, Message
from providers.mistral import Mistral
from tests.contract.mistral.asked import TEXTS, conversations, requests
from tests.fakes.specs import needs_specs, validator

EXAMPLES = 2_000 if os.environ.get("MIXGATE_TEST_FULL") else 200
BASE = "https://api.mistral.ai/v1"
PLAIN = Endpoint(id="mistral/up", provider="mistral", model="m", upstream_model="up", base_url=BASE)
THINKING = Endpoint(
    id="mistral/up",
    provider="mistral",
    model="m",
    upstream_model="up",
    base_url=BASE,
    capabilities=Capabilities(reasoning=True),
)
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def sent(request, endpoint=PLAIN):
    return json.loads(Mistral().encode(request, endpoint, stream=bool(request.stream)).body)


@needs_specs
@given(requests(), st.sampled_from([PLAIN, THINKING]))
@many
def test_every_request_is_valid_by_the_published_schema_and_the_vendors_types(request, endpoint):
    body = sent(request, endpoint)
    validator("mistral", "ChatCompletionRequest").validate(body)
    ClientRequest.model_validate(body)
    assert "stream_options" not in body
    assert body.get("stop") != []


@given(requests(), st.sampled_from([PLAIN, THINKING]))
@many
def test_what_was_asked_and_is_not_sent_is_said(request, endpoint):
    wire = Mistral().encode(request, endpoint, stream=False)
    body = json.loads(wire.body)
    told = {change.param for change in wire.adapted}
    for name in ("logit_bias", "audio", "web_search_options", "user", "safety_identifier", "cache_control"):
        assert (getattr(request, name) is not None) == (name in told)
        assert name not in body
    assert ("temperature" in told) == ((request.temperature or 0) > 1.5)
    assert ("seed" in told) == ((request.seed or 0) < 0)
    for position, message in enumerate(request.messages):
        if message.name and message.role in ("system", "developer", "user", "assistant"):
            assert f"messages[{position}].name" in told


def served(body):
    """Our body as Mistral's own serving code reads it."""
    request = {name: body[name] for name in ("model", "messages", "tools", "random_seed", "max_tokens") if name in body}
    for message in request["messages"]:
        if message["role"] == "system" and not isinstance(message["content"], str):
            message["content"] = [part for part in message["content"] if part["type"] == "text"]
    return ServedRequest.model_validate(request)


@given(requests(conversations()))
@many
def test_order_and_tool_ids_are_those_that_mistral_serves(request):
    body = sent(request)
    for version in (TokenizerVersion.v7, TokenizerVersion.v11, TokenizerVersion.v13):
        get_validator(version, ValidationMode.serving).validate_request(served(body))
    roles = [message["role"] for message in body["messages"]]
    assert ("tool", "user") not in set(pairwise(roles))  # what older models refuse
    for earlier, later in pairwise(roles):
        assert later != "system" or earlier in ("system", "user")
    assert roles[-1] != "system"


@given(requests(conversations(TEXTS)))
@many
def test_the_models_that_speak_as_the_mixtrals_did_are_served_too(request):
    for message in request.messages:
        if message.tool_calls and message.content:
            return  # text beside calls is more than any of them can read
    get_validator(TokenizerVersion.v3, ValidationMode.serving).validate_request(served(sent(request)))


@given(requests())
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_request_is_encoded_the_same_way_every_time(request):
    assert Mistral().encode(request, PLAIN, stream=True) == Mistral().encode(request, PLAIN, stream=True)


@given(conversations())
@many
def test_no_word_of_a_conversation_is_lost(messages):
    body = json.dumps(sent(ChatRequest(messages=messages)), ensure_ascii=False)
    for message in messages:
        for text in texts_of(message):
            assert json.dumps(text, ensure_ascii=False)[1:-1] in body


def texts_of(message: Message):
    content = message.content
    if isinstance(content, str):
        return [content]
    return [part.text for part in content or () if part.text]
