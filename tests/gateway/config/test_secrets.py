"""Secrets: references resolve, keys do not leak."""

import copy
import json
import os
import pickle
import traceback
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.secrets import MASK, SECRET_MAX_BYTES, Secret, is_reference, looks_like_key, resolve, show

KEY = "sk-or-v1-0123456789abcdef"


def key_file(tmp_path: Path, text: str = KEY + "\n", mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_does_not_print():
    secret = Secret(KEY, "env:A")
    assert {repr(secret), str(secret), f"{secret}", f"{secret!r:>3}", f"{secret}"} == {MASK}
    assert KEY not in repr([secret]) + repr({"a": secret})
    assert secret.reveal() == KEY
    assert secret.reference == "env:A"


def test_a_secret_is_not_serialised():
    secret = Secret(KEY)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    assert copy.deepcopy([secret])[0] is secret
    assert copy.copy(secret) is secret
    assert not hasattr(secret, "__dict__")


def use(secret: Secret) -> float:
    return len(str(secret)) / 0


def test_a_secret_does_not_show_in_a_traceback():
    secret = Secret(KEY)
    with pytest.raises(ZeroDivisionError) as caught:
        use(secret)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert MASK in shown
    assert KEY not in shown


@given(st.text(), st.text())
def test_a_secret_matches_itself_alone(first: str, second: str):
    assert Secret(first.encode("utf-8", "replace").decode()).matches(first.encode("utf-8", "replace"))
    clean = first.encode("utf-8", "replace").decode()
    assert Secret(clean).matches(second) == (clean == second)


def test_secrets_compare_by_their_text():
    assert Secret("a", "env:A") == Secret("a", "env:B")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_a_variable_resolves():
    found = resolve("env:A_KEY", {"A_KEY": f" {KEY}\n"})
    assert found.secret is not None
    assert found.secret.reveal() == KEY
    assert found.variable == "A_KEY"


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({}, "is not set"),
        ({"A": ""}, "is empty"),
        ({"A": "  "}, "is empty"),
        ({"A": "x\r\ny"}, "no HTTP header"),
        ({"A": "é"}, "no HTTP header"),
    ],
)
def test_a_variable_that_cannot_be_used_is_told_with_its_name(env: dict[str, str], reason: str):
    found = resolve("env:A", env)
    assert found.secret is None
    assert reason in found.reason
    assert "export A" in found.fix


def test_a_private_file_resolves(tmp_path: Path):
    found = resolve(f"file:{key_file(tmp_path)}", {})
    assert found.secret is not None
    assert found.secret.reveal() == KEY
    assert found.file == tmp_path / "key"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    found = resolve(f"file:{key_file(tmp_path, mode=mode)}", {})
    assert found.secret is None
    assert f"mode {mode:04o}" in found.reason
    assert "chmod 600" in found.fix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = key_file(tmp_path)
    os.chown(path, 12345, 12345)
    found = resolve(f"file:{path}", {})
    assert found.secret is None
    assert "another user" in found.reason


@pytest.mark.parametrize(
    ("text", "reason"), [("", "does not hold a key"), ("a b", "does not hold"), ("x" * (SECRET_MAX_BYTES + 1), "over")]
)
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str, reason: str):
    found = resolve(f"file:{key_file(tmp_path, text)}", {})
    assert found.secret is None
    assert reason in found.reason


def test_a_missing_file_a_folder_and_a_pipe_are_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "cannot be read" in resolve(f"file:{tmp_path}/none", {}).reason
    assert resolve(f"file:{tmp_path}", {}).secret is None
    assert "not a regular file" in resolve(f"file:{tmp_path}/pipe", {}).reason


def test_a_link_to_a_private_file_is_followed(tmp_path: Path):
    (tmp_path / "link").symlink_to(key_file(tmp_path))
    assert resolve(f"file:{tmp_path}/link", {}).secret is not None


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "gsk_0123456789abcdefghij",
        "hf_abcdefghijklmnopqrst",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA0123456789012345678901234567890",
        "eyJhbGciOiJI.eyJzdWIiOiIx",
        "-----BEGIN PRIVATE KEY-----",
        "Bearer 0123456789abcdef",
        "https://user:pass@host/",
        "https://token@host/",
        "http://h/?key=abc",
        "ghp_0123456789abcdefghij0123",
        "see sk-proj-0123456789ab here",
    ],
)
def test_credentials_are_recognised(text: str):
    assert looks_like_key(text)
    assert not is_reference("env:" + text)
    assert show(text) == MASK


@pytest.mark.parametrize(
    "text",
    [
        "mistralai/mixtral-8x22b-instruct",
        "mistral.mixtral-8x7b-instruct-v0:1",
        "Mixtral-8x7B-Instruct-v0.1.Q4_K_M.gguf",
        "http://10.0.0.7:8000/v1",
        "https://openrouter.ai/api/v1",
        "env:OPENROUTER_API_KEY",
        "file:/run/secrets/key",
        "task-oriented-and-rather-long-name",
        "@cf/meta/llama-3-8b-instruct",
        "a mask-like-thing-with-dashes",
    ],
)
def test_names_and_urls_are_no_credentials(text: str):
    assert not looks_like_key(text)


@given(st.text())
def test_what_is_shown_is_one_short_printable_line(text: str):
    shown = show(text)
    assert shown.isprintable() or not text.isprintable()
    assert "\n" not in shown
    assert "\x1b" not in shown
