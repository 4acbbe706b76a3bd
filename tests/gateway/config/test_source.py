"""Reading YAML: positions, decimals, and the bounds."""

import time
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.source import DEPTH_MAX, NODES_MAX, TEXT_MAX_BYTES, read_source
from gateway.errors import ConfigError, ConfigProblem


def plain(text: str | bytes) -> object:
    return read_source(text if isinstance(text, bytes) else text.encode(), "f").plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.00", Decimal("2.00")),
        ("1e-3", Decimal("0.001")),
        ("-7", -7),
        ("007", 7),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-10-19", "2026-10-19"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("", None),
        ('"2.00"', "2.00"),
        ("'null'", "null"),
        (".inf", ".inf"),
        ("1" * 40, "1" * 40),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says_in_decimal(text: str, value: object):
    assert plain(f"a: {text}\n") == {"a": value}
    assert type(plain(f"a: {text}\n")["a"]) is type(value)


def test_every_key_and_item_knows_its_line():
    node = read_source(b"a:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n", "f")
    assert node.line_of(("a",)) == 1
    assert node.line_of(("a", "c")) == 3
    assert node.line_of(("a", "c", 1)) == 5
    assert node.line_of(("a", "c", 1, "e")) == 6
    assert node.line_of(("a", "zzz")) == 1
    assert node.line_of(("a", "c", 9)) == 3


def test_an_alias_stands_for_its_value_and_has_its_own_line():
    node = read_source(b"a: &x [1, 2]\nb: *x\n", "f")
    assert node.plain() == {"a": [1, 2], "b": [1, 2]}
    assert node.line_of(("b",)) == 2


def test_aliases_that_multiply_are_stopped_before_they_are_written_out():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
    )
    began_s = time.process_time()
    with pytest.raises(ConfigError, match=f"more than {NODES_MAX} values"):
        plain(text)
    assert time.process_time() - began_s < 1


def test_an_anchor_cannot_hold_itself():
    with pytest.raises(ConfigError, match="nothing above it"):
        plain("a: &x [*x]\n")


@pytest.mark.parametrize("text", ["[" * 100, "{a: " * 100, "- " * 100, "[" * 900_000])
def test_depth_is_bounded(text: str):
    with pytest.raises(ConfigError, match=f"nested more than {DEPTH_MAX} deep"):
        plain(text)


def test_size_is_bounded():
    with pytest.raises(ConfigError, match="at most"):
        plain(b"#" * (TEXT_MAX_BYTES + 1))


def test_bytes_that_are_not_utf_8_are_told_with_their_line():
    with pytest.raises(ConfigError) as caught:
        plain(b"a: 1\nb: \xff\n")
    assert caught.value.problems[0].where == "f:2"


def test_a_byte_order_mark_is_no_content():
    assert plain(b"\xef\xbb\xbfa: 1\n") == {"a": 1}


@given(st.text(alphabet=st.sampled_from("abc:-{}[]&*!|>'\"%@`#,? \n\t01.~"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str):
    problems: tuple[ConfigProblem, ...] = ()
    try:
        read_source(text.encode("utf-8", "surrogatepass"), "f")
    except ConfigError as error:
        problems = error.problems
    assert all(problem.where.startswith("f") and problem.fix for problem in problems)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abcdef /-", max_size=10),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(st.text("abcdef", min_size=1, max_size=5), children, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_what_yaml_writes_is_read_back_the_same(value: object):
    written = {"root": value}
    assert plain(yaml.safe_dump(written)) == written
