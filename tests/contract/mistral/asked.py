"""Requests as clients of an OpenAI surface make them, every feature on, for judging what Mistral is sent."""

from hypothesis import strategies as st

from providers.messages import (
    ChatRequest,
    Function,
    FunctionCall,
    JsonSchema,
    Message,
    Part,
    ResponseFormat,
    StreamOptions,
    Tool,
    ToolCall,
)

WORDS = st.text(min_size=1, max_size=20)
NAMES = st.sampled_from(["look_up", "add", "get-weather", "f"])
IDS = st.sampled_from(["aB3dE6gH9", "call_1", "call_2", "toolu_01AbC", "", "null", "\u00e9" * 40]) | st.text(
    max_size=12
)
SCHEMAS = st.sampled_from(
    [{"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}, {"type": "object"}, {}]
)
MARK = st.none() | st.just({"type": "ephemeral"})
TEXT_PART = st.builds(Part, type=st.just("text"), text=WORDS, cache_control=MARK)
IMAGE_PART = st.builds(
    Part,
    type=st.just("image_url"),
    image_url=st.sampled_from(
        ["data:image/png;base64,AA==", {"url": "https://x.test/a.png", "detail": "high"}, {"url": "a", "detail": "odd"}]
    ),
)
OTHER_PART = st.sampled_from(
    [
        Part(type="input_audio", input_audio={"data": "AA==", "format": "wav"}),
        Part(type="file", file={"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}),
        Part(type="file", file={"file_id": "7d1a1a0e-2c9f-4c36-8a52-0d2a3f6f5b11"}),
        Part(type="refusal", refusal="I would rather not."),
    ]
)
TEXTS = WORDS | st.lists(TEXT_PART, min_size=1, max_size=3).map(tuple)
CONTENT = TEXTS | st.lists(TEXT_PART | IMAGE_PART, min_size=1, max_size=3).map(tuple)
ANY_CONTENT = CONTENT | st.lists(OTHER_PART, min_size=1, max_size=2).map(tuple)
NAME = st.none() | st.just("Ann")


@st.composite
def tool_round(draw):
    """An assistant that calls tools, and every result, in any order, some told apart by position only."""
    calls = draw(
        st.lists(
            st.builds(
                ToolCall,
                id=IDS,
                index=st.none() | st.just(0),
                function=st.builds(FunctionCall, name=NAMES, arguments=st.sampled_from(["{}", '{"q": "x"}', ""])),
            ),
            min_size=1,
            max_size=3,
        )
    )
    results = [
        Message(role="tool", tool_call_id=call.id, content=draw(TEXTS), name=draw(st.none() | NAMES)) for call in calls
    ]
    said = draw(st.none() | st.none() | TEXTS)
    return [Message(role="assistant", content=said, tool_calls=tuple(calls)), *draw(st.permutations(results))]


def turn(content):
    return st.one_of(
        st.builds(Message, role=st.just("user"), content=content, name=NAME, cache_control=MARK).map(lambda one: [one]),
        st.builds(
            Message,
            role=st.just("assistant"),
            content=TEXTS,
            name=NAME,
            reasoning=st.none() | WORDS,
            reasoning_details=st.none() | st.just([{"type": "reasoning.text"}]),
            annotations=st.none() | st.just([{"type": "url_citation"}]),
            audio=st.none() | st.just({"id": "audio_1"}),
            prefix=st.none() | st.booleans(),
        ).map(lambda one: [one]),
        st.builds(Message, role=st.just("assistant"), refusal=WORDS).map(lambda one: [one]),
        st.builds(Message, role=st.sampled_from(["system", "developer"]), content=TEXTS, name=NAME).map(
            lambda one: [one]
        ),
        tool_round(),
        st.builds(Message, role=st.just("tool"), tool_call_id=IDS, content=TEXTS).map(lambda one: [one]),
    )


def conversations(content=CONTENT):
    """Conversations that OpenAI would take, and some orphans that it would not."""
    first = st.builds(Message, role=st.sampled_from(["system", "user"]), content=TEXTS)
    second = st.builds(Message, role=st.just("user"), content=content)
    rest = st.lists(turn(content), max_size=6).map(lambda turns: [one for turn in turns for one in turn])
    return st.tuples(first, second, rest).map(lambda made: (made[0], made[1], *made[2]))


def maybe(strategy):
    return st.none() | strategy


TOOLS = st.lists(
    st.builds(
        Tool,
        function=st.builds(
            Function, name=NAMES, description=maybe(WORDS), parameters=maybe(SCHEMAS), strict=maybe(st.booleans())
        ),
        cache_control=MARK,
    )
    | st.just(Tool(type="web_search")),
    max_size=4,
).map(tuple)
CHOICES = st.sampled_from(
    [
        "auto",
        "none",
        "required",
        "any",
        {"type": "function", "function": {"name": "add"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "add"}}]}},
    ]
)
FORMATS = st.sampled_from(
    [
        ResponseFormat(type="text"),
        ResponseFormat(type="json_object"),
        ResponseFormat(type="json_object", schema={"type": "object"}),
        ResponseFormat(type="json_schema", json_schema=JsonSchema(name="a")),
        ResponseFormat(type="json_schema", json_schema=JsonSchema(schema={"type": "object"}, strict=True)),
    ]
)
UNIT = st.floats(0, 1)
PENALTY = st.floats(-2, 2)
COUNT = st.integers(1, 4096)
OBJECT = st.just({"a": 1})


def requests(messages=None):
    """Whole requests with every member that a client may send."""
    return st.builds(
        ChatRequest,
        messages=conversations(ANY_CONTENT) if messages is None else messages,
        model=st.just("m"),
        stream=maybe(st.booleans()),
        stream_options=maybe(st.just(StreamOptions(include_usage=True))),
        max_tokens=maybe(COUNT),
        max_completion_tokens=maybe(COUNT),
        n=maybe(st.integers(1, 8)),
        stop=maybe(st.sampled_from(["x", (), ("a", "b")])),
        seed=maybe(st.integers(-(2**63), 2**63 - 1)),
        temperature=maybe(st.floats(0, 2)),
        top_p=maybe(UNIT),
        top_k=maybe(st.integers(-1, 100)),
        min_p=maybe(UNIT),
        top_a=maybe(UNIT),
        presence_penalty=maybe(PENALTY),
        frequency_penalty=maybe(PENALTY),
        repetition_penalty=maybe(st.floats(0.1, 2)),
        logit_bias=maybe(st.just({"5": 1.0})),
        logprobs=maybe(st.booleans()),
        top_logprobs=maybe(st.integers(0, 20)),
        response_format=maybe(FORMATS),
        tools=maybe(TOOLS),
        tool_choice=maybe(CHOICES),
        parallel_tool_calls=maybe(st.booleans()),
        reasoning=maybe(st.sampled_from([{"effort": "low"}, {"enabled": True, "exclude": True}, {"max_tokens": 9}])),
        reasoning_effort=maybe(st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"])),
        verbosity=maybe(st.sampled_from(["low", "medium", "high"])),
        modalities=maybe(st.sampled_from([["text"], ["text", "audio"]])),
        audio=maybe(OBJECT),
        prediction=maybe(
            st.sampled_from(
                [
                    {"type": "content", "content": "x"},
                    {"type": "content", "content": [{"type": "text", "text": "x"}]},
                    {"type": "content", "content": [{"type": "image_url"}]},
                ]
            )
        ),
        web_search_options=maybe(OBJECT),
        service_tier=maybe(st.sampled_from(["auto", "flex", "default", "priority"])),
        store=maybe(st.booleans()),
        metadata=maybe(OBJECT),
        user=maybe(WORDS),
        safety_identifier=maybe(WORDS),
        prompt_cache_key=maybe(WORDS),
        cache_control=MARK,
        models=maybe(st.just(("a", "b"))),
        provider=maybe(OBJECT),
        plugins=maybe(st.just([{"id": "web"}])),
        transforms=maybe(st.just(["middle-out"])),
        route=maybe(st.just("fallback")),
        session_id=maybe(WORDS),
        trace=maybe(OBJECT),
        usage=maybe(st.just({"include": True})),
        debug=maybe(OBJECT),
        extra=maybe(
            st.sampled_from(
                [
                    {"safe_prompt": True, "random_seed": 3, "prompt_mode": "reasoning", "guardrails": [{"a": 1}]},
                    {"safe_prompt": "yes", "random_seed": -1, "prompt_mode": 3, "guardrails": [1], "new_member": {}},
                    {"messages": {"0": {"metadata": 1, "content": {"0": {"new": 1}}}}, "min_tokens": 3},
                ]
            )
        ),
    )
