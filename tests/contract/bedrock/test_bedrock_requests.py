"""What Bedrock is sent, judged by Amazon's service model and by the rules its service adds to it."""

import base64
import json
import os
import sys
from collections import Counter
from itertools import pairwise

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.base import Capabilities, Endpoint, Price
from providers.bedrock_converse import BedrockConverse
from providers.bedrock_invoke import BedrockInvoke
from providers.errors import UnsupportedError
from providers.messages import JsonSchema, Message, Part, ResponseFormat
from tests.contract.bedrock.judge import check, params_of
from tests.contract.mistral.asked import CONTENT, TEXTS, conversations, requests, turn

EXAMPLES = 3_000 if os.environ.get("MIXGATE_TEST_FULL") else 200
# Some are refused, as they should be: over 2,000 are sent when all are tried.
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = Endpoint(
    id="bedrock/mixtral",
    provider="bedrock",
    model="m",
    upstream_model="mistral.mixtral-8x7b-instruct-v0:1",
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
    context_tokens=32768,
    max_output_tokens=4096,
)
ABLE = msgspec.structs.replace(
    PLAIN,
    upstream_model="us.mistral.pixtral-large-2502-v1:0",
    capabilities=Capabilities(
        system=True, tools=True, json_object=True, json_schema=True, prefill=True, vision=True, reasoning=True
    ),
    price=Price(cache_read_in_pusd=1),
)
BYTES = base64.b64encode(b"bytes").decode()
IMAGE = st.sampled_from(["png", "jpeg", "jpg", "gif", "webp"]).map(
    lambda kind: Part(type="image_url", image_url={"url": f"data:image/{kind};base64,{BYTES}"})
)
FILE = st.builds(
    lambda kind, name: Part(type="file", file={"file_data": f"data:{kind};base64,{BYTES}", "filename": name}),
    st.sampled_from(["application/pdf", "text/plain", "text/csv"]),
    st.none() | st.text(max_size=300),
)
RICH = TEXTS | st.lists(
    st.builds(Part, type=st.just("text"), text=st.sampled_from(["", " \n", "x", "y z"])) | IMAGE | FILE,
    min_size=1,
    max_size=4,
).map(tuple)
THOUGHT = Message(
    role="assistant",
    content="so",
    reasoning_details=[
        {"type": "reasoning.text", "text": "a", "index": 0},
        {"type": "reasoning.text", "text": "b", "signature": "S", "index": 0},
        {"type": "reasoning.encrypted", "data": BYTES},
    ],
)
TALKS = st.one_of(
    conversations(RICH),
    st.lists(turn(RICH) | st.just([THOUGHT]), min_size=1, max_size=6).map(
        lambda turns: (Message(role="user", content="hi"), *(one for each in turns for one in each))
    ),
    conversations(CONTENT),
)
JSON_FORMAT = st.sampled_from(
    [
        None,
        ResponseFormat(type="text"),
        ResponseFormat(type="json_schema", json_schema=JsonSchema(schema={"type": "object"}, description="d")),
    ]
)


@st.composite
def asked(draw):
    """Requests with every feature on, mostly such as a Converse model can serve."""
    request = draw(requests(TALKS))
    metadata = draw(st.none() | st.dictionaries(st.text("ab:/", max_size=3), st.text(max_size=3), max_size=20))
    tools = tuple(tool for tool in request.tools or () if tool.function is not None)
    choice = request.tool_choice if isinstance(request.tool_choice, str) or draw(st.booleans()) else "auto"
    changes = {
        "n": draw(st.sampled_from([None, None, None, 1, 1, 1, 1, 1, 1, 2])),
        "response_format": draw(JSON_FORMAT),
        "metadata": metadata,
    }
    return msgspec.structs.replace(
        request, **changes, tools=tools or None, tool_choice=choice, top_k=draw(st.none() | st.integers(-1, 1000))
    )


COUNTS = Counter()


@given(asked(), st.sampled_from([ABLE, ABLE, ABLE, PLAIN]), st.booleans())
@many
def test_every_request_fits_the_service_model_and_the_rules_of_the_service(request, endpoint, stream):
    try:
        wire = BedrockConverse().encode(request, endpoint, stream=stream)
    except UnsupportedError as error:
        COUNTS[f"refused: {error.param}"] += 1
        return
    COUNTS["sent"] += 1
    assert wire.stream == stream
    params = params_of(wire)
    check(params, "ConverseStream" if stream else "Converse")
    turns = params["messages"]
    assert turns[0]["role"] == "user"
    assert all(one["role"] != other["role"] for one, other in pairwise(turns))
    for said in turns:
        assert said["content"]
        for block in said["content"]:
            assert block.get("text", "x").strip()
    blocks = [block for said in turns for block in said["content"]]
    names = [block["document"]["name"] for block in blocks if "document" in block]
    assert len(names) == len(set(names))
    if any("toolUse" in block for block in blocks):
        assert params["toolConfig"]["tools"]
    if endpoint is PLAIN:
        assert not {"system", "toolConfig", "outputConfig"} & set(params)
        assert not any({"toolUse", "toolResult", "image", "cachePoint"} & set(block) for block in blocks)
        assert 1 <= params["inferenceConfig"]["maxTokens"] <= 4096


def test_enough_of_those_requests_were_sent():
    sys.stderr.write(f"\nbedrock requests: {dict(COUNTS)}\n")
    assert COUNTS["sent"] >= sum(COUNTS.values()) / 3, COUNTS


@given(asked(), st.sampled_from([ABLE, PLAIN]))
@many
def test_what_was_asked_and_is_not_sent_is_said(request, endpoint):
    try:
        wire = BedrockConverse().encode(request, endpoint, stream=False)
    except UnsupportedError:
        return
    body = json.loads(wire.body)
    told = {change.param for change in wire.adapted}
    for name in ("seed", "logit_bias", "audio", "web_search_options", "user", "safety_identifier", "cache_control"):
        assert (getattr(request, name) is not None) == (name in told)
    assert ("temperature" in told) == ((request.temperature or 0) > 1)
    assert ("top_k" in told) == ((request.top_k or 0) > 200)
    if request.metadata:
        assert ("metadata" in told) == ("requestMetadata" not in body)
    for member in request.extra or ():
        assert member in told or member in body


@given(asked(), st.booleans())
@many
def test_a_native_prompt_holds_the_turns_in_mistrals_marks(request, stream):
    request = msgspec.structs.replace(request, tools=None, response_format=None, n=None)
    try:
        wire = BedrockInvoke().encode(request, PLAIN, stream=stream)
    except UnsupportedError:
        return
    body = json.loads(wire.body)
    operation = "InvokeModelWithResponseStream" if stream else "InvokeModel"
    check({"modelId": params_of(wire)["modelId"], "body": wire.body, "contentType": "application/json"}, operation)
    assert set(body) <= {"prompt", "max_tokens", "temperature", "top_p", "top_k", "stop"}
    assert body["prompt"].startswith("<s>[INST] ")
    assert body["prompt"].endswith(" [/INST]")
    assert 0 <= body.get("temperature", 0) <= 1
    assert 1 <= body.get("top_k", 1) <= 200
    assert 1 <= body["max_tokens"] <= 4096
