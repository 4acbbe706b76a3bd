import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import Capabilities
from providers.emulation import Repair, emulate, wanted_schema
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    Function,
    FunctionCall,
    JsonSchema,
    Message,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from providers.replies import find_json
from providers.schema_validation import BadSchemaError, check_schema, complaint

NOTHING = Capabilities()
WEATHER = Tool(
    function=Function(
        name="weather",
        description="What the weather is",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"],
            "additionalProperties": False,
        },
    )
)
ASK = (Message(role="user", content="How is the weather in Lima?"),)
CALL = '{"tool_calls": [{"name": "weather", "arguments": {"city": "Lima"}}]}'


def tools_request(**members) -> ChatRequest:
    return ChatRequest(messages=ASK, tools=(WEATHER,), **members)


def json_request(schema) -> ChatRequest:
    form = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=schema))
    return ChatRequest(messages=ASK, response_format=form)


def said(*texts: str, reason="stop") -> list:
    return [*(TextDelta(text) for text in texts), ChoiceFinished(reason)]


def test_an_endpoint_that_can_is_asked_as_it_is():
    assert emulate(tools_request(), Capabilities(tools=True)) is None
    assert emulate(json_request({}), Capabilities(json_schema=True)) is None
    assert emulate(ChatRequest(messages=ASK), NOTHING) is None
    assert emulate(tools_request(tool_choice="none"), NOTHING) is None


def test_tools_are_asked_for_in_words_and_never_sent():
    asked = emulate(tools_request(), NOTHING).request
    assert asked.tools is None
    assert asked.tool_choice is None
    assert "weather" in asked.messages[0].content
    assert asked.messages[1:] == ASK


def test_words_join_a_system_message_that_is_there():
    request = ChatRequest(messages=(Message(role="system", content="Be brief."), *ASK), tools=(WEATHER,))
    asked = emulate(request, NOTHING).request
    assert asked.messages[0].content.startswith("Be brief.\n\n")
    assert len(asked.messages) == 2


def test_calls_and_results_of_earlier_turns_become_words():
    call = ToolCall(id="abc", function=FunctionCall(name="weather", arguments='{"city": "Lima"}'))
    history = (
        *ASK,
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", tool_call_id="abc", content="12 degrees"),
    )
    asked = emulate(ChatRequest(messages=history, tools=(WEATHER,)), NOTHING).request
    assert [message.role for message in asked.messages] == ["system", "user", "assistant", "user"]
    assert '"city": "Lima"' in asked.messages[2].content
    assert "12 degrees" in asked.messages[3].content


@pytest.mark.parametrize(
    "reply",
    [
        CALL,
        f"Sure!\n```json\n{CALL}\n```",
        '[{"name": "weather", "arguments": {"city": "Lima"}}]',
        '{"name": "weather", "parameters": {"city": "Lima"}}',
        '{"tool_calls": [{"function": {"name": "weather", "arguments": "{\\"city\\": \\"Lima\\"}"}}]}',
    ],
)
def test_a_call_is_read_in_every_form_that_models_use(reply):
    events = emulate(tools_request(), NOTHING).settle(said(*reply), complaint)
    assert [type(event) for event in events] == [ToolCallDelta, ChoiceFinished]
    assert (events[0].name, json.loads(events[0].arguments)) == ("weather", {"city": "Lima"})
    assert events[1].reason == "tool_calls"


def test_words_where_no_call_is_needed_are_the_answer():
    emulation = emulate(tools_request(), NOTHING)
    assert emulation.settle(said("It is sunny."), complaint) == said("It is sunny.")
    assert emulation.settle(said('{"content": "It is sunny."}'), complaint) == said("It is sunny.")


@pytest.mark.parametrize(
    "reply",
    [
        '{"tool_calls": [{"name": "rain", "arguments": {}}]}',
        '{"tool_calls": [{"name": "weather", "arguments": {}}]}',
        '{"tool_calls": [{"name": "weather", "arguments": {"city": 3}}]}',
        '{"tool_calls": [{"name": "weather", "arguments": {"city": "Lima", "x": 1}}]}',
    ],
)
def test_a_bad_call_is_asked_for_once_more_and_then_fails(reply):
    emulation = emulate(tools_request(), NOTHING)
    repair = emulation.settle(said(reply), complaint)
    assert isinstance(repair, Repair)
    assert repair.request.messages[-2].content == reply
    second = type(emulation)(repair.request, emulation.emulated, emulation.original, repaired=True)
    assert isinstance(second.settle(said(reply), complaint)[-1], AnswerFailed)
    assert isinstance(second.settle(said(CALL), complaint)[0], ToolCallDelta)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_that_must_come_is_not_replaced_by_words(choice):
    emulation = emulate(tools_request(tool_choice=choice), NOTHING)
    assert isinstance(emulation.settle(said("I would rather talk."), complaint), Repair)


def test_an_endpoint_that_holds_to_a_schema_is_given_one():
    capable = Capabilities(json_schema=True)
    schema = wanted_schema(emulate(tools_request(), capable).request)
    assert complaint(json.loads(CALL), schema) is None
    assert complaint({"content": "words"}, schema) is None
    assert complaint({"tool_calls": []}, schema) is not None
    forced = wanted_schema(emulate(tools_request(tool_choice="required"), capable).request)
    assert complaint({"content": "words"}, forced) is not None


def test_json_is_cleaned_of_what_stands_around_it():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    emulation = emulate(json_request(schema), NOTHING)
    events = emulation.settle(said("Here you are:\n", '```json\n{"a": 1}\n```'), complaint)
    assert json.loads("".join(event.text for event in events if isinstance(event, TextDelta))) == {"a": 1}
    assert isinstance(emulation.settle(said('{"a": "x"}'), complaint), Repair)
    assert isinstance(emulation.settle(said("no json at all"), complaint), Repair)


def test_an_answer_cut_by_its_limit_is_handed_on_as_it_is():
    events = said('{"a": ', reason="length")
    assert emulate(json_request({"type": "object"}), NOTHING).settle(events, complaint) == events


def test_every_choice_is_judged():
    emulation = emulate(json_request({"type": "object"}), NOTHING)
    good = [TextDelta('{"a": 1}', 0), TextDelta('{"b": 2}', 1), ChoiceFinished("stop", 0), ChoiceFinished("stop", 1)]
    assert len(emulation.settle(good, complaint)) == 4
    assert isinstance(emulation.settle([*good[:1], TextDelta("nope", 1), *good[2:]], complaint), Repair)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_json_is_found_in_prose(value):
    if isinstance(value, dict | list):
        assert find_json(f"Well, {json.dumps(value)} is it.") == (value, None)
    assert find_json(json.dumps(value)) == (value, None)


@given(st.text(alphabet='{}[]"\\,:a1 \n', max_size=400))
def test_no_text_breaks_the_reading(text):
    for request in (tools_request(), json_request({"type": "object"})):
        outcome = emulate(request, NOTHING).settle(said(text) if text else said(), complaint)
        assert isinstance(outcome, Repair | list)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"description": "x" * 70_000}}},
        [],
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_and_nothing_is_fetched(schema):
    def use() -> None:
        check_schema(schema)
        complaint({"a": 1}, schema)

    with pytest.raises(BadSchemaError):
        use()


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_pattern_that_could_run_for_ever_is_not_run(pattern):
    schema = {"type": "string", "pattern": pattern}
    assert complaint("a" * 60 + "!", schema) is None


def test_a_plain_pattern_is_run():
    assert complaint("abc", {"type": "string", "pattern": "^[0-9]{3}$"}) is not None
    assert complaint("123", {"type": "string", "pattern": "^[0-9]{3}$"}) is None


def test_a_schema_that_doubles_with_every_level_is_given_up():
    levels = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(40)}
    schema = {"$ref": "#/$defs/l0", "$defs": {**levels, "l40": {"type": "string"}}}
    with pytest.raises(BadSchemaError, match="steps"):
        complaint(5, schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(a+)+$"}}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"$schema": 5},
        {"$schema": []},
        {"$ref": 5},
        {"$ref": "#/nowhere"},
        {"pattern": "("},
        {"$dynamicRef": "#x"},
    ],
)
def test_a_schema_that_would_get_around_the_bounds_is_refused(schema):
    def use() -> None:
        for value in ("a", {"a" * 40 + "!": 1, "a": "a" * 40 + "!"}):
            complaint(value, schema)

    with pytest.raises(BadSchemaError):
        use()


def test_members_named_by_a_pattern_are_judged():
    schema = {"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}
    assert complaint({"x_a": 1}, schema) is None
    assert complaint({"x_a": "1"}, schema) is not None
    assert complaint({"y": 1}, schema) is not None


def test_more_items_than_can_be_compared_are_not_unique():
    schema = {"type": "array", "uniqueItems": True}
    assert complaint([{"a": n} for n in range(1000)], schema) is None
    assert complaint([{"a": n} for n in range(100_000)], schema) is not None


@pytest.mark.parametrize(
    "reply",
    [
        '{"a": {"b": 1}, "c": "cut of',
        '{"a": {"b": 1}, "c": [1, 2',
        '{"a": {"b": 1}, broken}',
        '[{"b": 1}, {"b": 2}, {"b',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        "",
        "[1, 2]",
    ],
)
def test_part_of_a_broken_value_is_never_the_answer(reply):
    assert isinstance(emulate(json_request({"type": "object"}), NOTHING).settle(said(reply), complaint), Repair)


def test_the_value_that_fits_is_taken_among_several():
    emulation = emulate(json_request({"type": "object", "required": ["a"]}), NOTHING)
    events = emulation.settle(said('As in [1], {"b": 2} is wrong, so: {"a": 1}'), complaint)
    assert events[0].text == '{"a": 1}'


@pytest.mark.parametrize(
    "reply", ['{"tool_calls": [{"name": "weather", "argum', '{"tool_calls": "x"}', '{"tool_calls": [5]}']
)
def test_a_broken_call_is_no_answer_in_words(reply):
    assert isinstance(emulate(tools_request(), NOTHING).settle(said(reply), complaint), Repair)


def test_json_that_only_looks_like_a_call_is_an_answer():
    for reply in ('{"name": "Bob"}', '[{"name": "Bob"}, {"name": "Eve"}]'):
        assert emulate(tools_request(), NOTHING).settle(said(reply), complaint) == said(reply)


def test_one_call_at_most_is_one():
    two = '{"tool_calls": [%s, %s]}' % ((CALL[16:-2],) * 2)
    assert isinstance(emulate(tools_request(parallel_tool_calls=False), NOTHING).settle(said(two), complaint), Repair)
    assert len(emulate(tools_request(), NOTHING).settle(said(two), complaint)) == 3


def test_an_answer_beside_tools_is_held_to_the_form_too():
    form = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema={"type": "object", "required": ["a"]}))
    emulation = emulate(tools_request(response_format=form), NOTHING)
    assert isinstance(emulation.settle(said("It is sunny."), complaint), Repair)
    assert isinstance(emulation.settle(said('{"content": "It is sunny."}'), complaint), Repair)
    for reply in ('{"content": {"a": 1}}', '{"content": "{\\"a\\": 1}"}', 'So: {"a": 1}'):
        assert emulation.settle(said(reply), complaint)[0].text == '{"a": 1}'
    assert isinstance(emulation.settle(said(CALL), complaint)[0], ToolCallDelta)


def test_arguments_that_refer_to_themselves_keep_their_references():
    node = {"type": "object", "properties": {"next": {"$ref": "#"}, "of": {"$ref": "#/$defs/kind"}}}
    parameters = {**node, "$defs": {"kind": {"enum": ["a", "b"]}}, "additionalProperties": False}
    tool = Tool(function=Function(name="walk", parameters=parameters))
    request = ChatRequest(messages=ASK, tools=(WEATHER, tool))
    schema = wanted_schema(emulate(request, Capabilities(json_schema=True)).request)
    good = {"tool_calls": [{"name": "walk", "arguments": {"next": {"of": "a"}}}]}
    bad = {"tool_calls": [{"name": "walk", "arguments": {"next": {"of": "c"}}}]}
    assert (complaint(good, schema), complaint(bad, schema) is None) == (None, False)
