"""What MindStudio is sent: the members its published client sends, within its limits, or a clear refusal."""

import json
import os

from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from providers.base import Endpoint
from providers.errors import UnsupportedError
from providers.mindstudio import MindStudio
from tests.contract.mistral.asked import requests

EXAMPLES = 2_000 if os.environ.get("MIXGATE_TEST_FULL") else 200
ENDPOINT = Endpoint(
    id="p/up", provider="p", model="m", upstream_model="up", base_url="https://x.test/v2", max_output_tokens=2500
)
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}


def closed(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


STEP = closed(
    step=closed(
        message={"type": "string", "minLength": 1},
        source={"const": "user"},
        modelOverride=closed(
            model=TEXT,
            temperature={"type": "number", "minimum": 0, "maximum": 1},
            maxResponseTokens={"type": "integer", "minimum": 1, "maximum": 2500},
            preamble=TEXT,
            ignorePreamble=FLAG,
        ),
        structuredOutputType={"enum": ["text", "json", "csv"]},
        chatHistoryMode={"enum": ["include", "exclude"]},
    )
)


@given(requests())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_request_is_within_the_step_or_refused(request):
    try:
        wire = MindStudio().encode(request, ENDPOINT, stream=True)
    except UnsupportedError as error:
        assert error.param  # noqa: PT017 (both outcomes are fine, and each is looked at)
        return
    body = json.loads(wire.body)
    Draft202012Validator(STEP).validate(body)
    told = {change.param for change in wire.adapted}
    for name in ("seed", "logit_bias", "audio", "user", "metadata", "prompt_cache_key"):
        assert (getattr(request, name) is not None) == (name in told)
