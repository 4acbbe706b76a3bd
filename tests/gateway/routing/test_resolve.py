import pytest

from gateway.config.load import load
from gateway.errors import ModelNotFoundError
from gateway.routing.resolve import resolve

CONFIG = """
providers:
  a:
    dialect: openai
    base_url: http://127.0.0.1:1/v1
    models:
      vendor/big:free: {serves: big, context_tokens: 100}
      small: {serves: small-model, context_tokens: 100}
routes:
  smart: {endpoints: [a/small], aliases: [clever, "gpt-4o"]}
"""


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    return load(path, {})


@pytest.mark.parametrize(
    ("asked", "route"),
    [
        ("smart", "smart"),
        ("clever", "smart"),
        ("gpt-4o", "smart"),
        ("big", "big"),
        ("small-model", "small-model"),
        ("a/small", "a/small"),
        ("a/vendor/big:free", "a/vendor/big:free"),
        ("smart:nitro", "smart"),
        ("clever:floor", "smart"),
        ("big:free", "big"),
        ("a/small:online", "a/small"),
        ("a/vendor/big:free:exacto", "a/vendor/big:free"),
    ],
)
def test_a_name_is_looked_up_exactly_and_then_without_its_suffix(catalogue, asked, route):
    assert resolve(asked, catalogue).name == route


@pytest.mark.parametrize(
    "asked", ["smart ", "Smart", "a", "small", "smart:nitro:floor", "smart:fast", "big\n", "../big", ":free"]
)
def test_nothing_else_is_a_name(catalogue, asked):
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(asked, catalogue)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_near_names_are_offered_and_at_most_three(catalogue):
    with pytest.raises(ModelNotFoundError, match=r"did you mean .*smart"):
        resolve("smrt", catalogue)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("small-modle", catalogue)
    assert "small-model" in caught.value.message
    assert caught.value.message.count(",") <= 2


def test_no_name_is_said_as_such(catalogue):
    with pytest.raises(ModelNotFoundError, match="no model was named"):
        resolve("", catalogue)


def test_a_long_name_is_not_repeated_whole(catalogue):
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("x" * 10_000, catalogue)
    assert len(caught.value.message) < 400
