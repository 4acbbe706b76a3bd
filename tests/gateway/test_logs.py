"""What the log says, and above all what it does not: decided by type, whatever somebody passes to it."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.operations import LogSettings
from gateway.config.secrets import Secret
from gateway.logs import JsonLines, TextLines, set_up
from gateway.request_id import REQUEST_ID
from providers.errors import ServerError
from providers.messages import ChatRequest, Message

CANARY = "canary-a-prompt-nobody-may-read"
KEY = "sk-canary0123456789abcdef"
REQUEST = ChatRequest(model="m", messages=[Message(role="user", content=CANARY)])


class Talkative:
    def __repr__(self):
        return CANARY

    __str__ = __repr__


def logged(message, *args, form="json", exc_info=None, level=logging.INFO):
    record = logging.LogRecord("mixgate.x", level, "file.py", 1, message, args, exc_info)
    return (JsonLines() if form == "json" else TextLines()).format(record)


def fail(error, cause):
    raise error from cause


def raised(error, cause=None):
    with pytest.raises(type(error)) as caught:
        fail(error, cause)
    return type(error), caught.value, caught.value.__traceback__


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "value",
    [
        REQUEST,
        CANARY.encode(),
        Talkative(),
        [REQUEST],
        {"a": REQUEST},
        ValueError(CANARY),
        Secret(CANARY),
        (Talkative(),),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_is_plain_is_written(form, value):
    assert CANARY not in logged("said %s", value, form=form)
    assert CANARY not in logged(value, form=form)
    assert "said" in logged("said %s", value, form=form)


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_words_of_foreign_errors_are_left_out_and_ours_are_kept(form):
    for told in (raised(ValueError(CANARY)), raised(ServerError("the provider broke"), ValueError(CANARY))):
        line = logged("failed", form=form, exc_info=told)
        assert CANARY not in line
        assert "test_logs.py" in line
        assert "ValueError" in line
    assert "the provider broke" in line


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", [KEY, f"https://user:{KEY}@host", f"https://host/?api_key={KEY}", f"Bearer {KEY}"])
def test_what_looks_like_a_key_is_masked(form, text):
    assert KEY not in logged("said %s here", text, form=form)
    assert KEY not in logged(f"said {text} here", form=form)
    assert "here" in logged("said %s here", text, form=form)


@given(
    st.text(max_size=200), st.lists(st.one_of(st.text(max_size=20), st.integers(), st.binary(max_size=9)), max_size=3)
)
def test_every_event_is_one_line_of_json(message, args):
    line = logged(message, *args)
    assert "\n" not in line
    event = json.loads(line)
    assert {"time", "level", "logger", "message"} <= event.keys()


def test_an_event_knows_its_request_and_its_error():
    token = REQUEST_ID.set("gen-01")
    try:
        event = json.loads(logged("broke: %s", 3, exc_info=raised(KeyError("x")), level=logging.ERROR))
        text = logged("broke: %s", 3, form="text")
    finally:
        REQUEST_ID.reset(token)
    assert (event["request_id"], event["level"], event["message"]) == ("gen-01", "error", "broke: 3")
    assert event["error"]["causes"] == ["KeyError"]
    assert "fail" in event["error"]["at"][-1]
    assert text.endswith("broke: 3 [gen-01]")
    assert "request_id" not in json.loads(logged("later"))


@given(st.text(max_size=50), st.text(max_size=50))
def test_words_of_others_never_look_like_an_event(word, more):
    text = logged("said %s", f"{word}\n2026-01-01 00:00:00,000 ERROR forged\r\x1b[2J{more}", form="text")
    first, *others = text.split("\n")
    assert "said" in first
    assert others
    assert all(line.startswith("    ") for line in others)
    assert all(one.isprintable() or one in "\n\t" for one in text)


def test_what_is_set_up_replaces_what_was(monkeypatch):
    root, ours = logging.getLogger(), logging.getLogger("mixgate")
    before = (list(root.handlers), root.level, ours.level)
    first, second = io.StringIO(), io.StringIO()
    try:
        set_up(LogSettings(), first)
        set_up(LogSettings(format="json", level="warning"), second)
        ours.info("too little")
        ours.warning("enough")
        logging.getLogger("library").info("never")
    finally:
        root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
        logging.getLogger("mixgate").manager._clear_cache()
    assert first.getvalue() == ""
    assert [json.loads(line)["message"] for line in second.getvalue().splitlines()] == ["enough"]
