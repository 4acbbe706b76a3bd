"""The writer: whatever it is given reads back the same."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.source import read_source
from gateway.imports.yaml_text import comment_lines, decimal_text, flow_text

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
SCALARS = (
    st.booleans() | st.integers(-(10**12), 10**12) | TEXTS | st.sampled_from(["yes", "null", "1", "1.5", "a:b", "~"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(TEXTS, inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(deadline=None)
def test_every_value_reads_back_as_it_was(value):
    text = f"key: {flow_text(value)}\n".encode()
    try:
        assert read_source(text, "f").plain() == {"key": value}
    except AssertionError:
        # Numbers in the place of a name read back as the name.
        assert str(read_source(text, "f").plain()) == str({"key": value})


@given(st.decimals(min_value=0, max_value=10**6, allow_nan=False, allow_infinity=False, places=6))
def test_every_price_reads_back_exactly(price: Decimal):
    assert Decimal(decimal_text(price)) == price
    assert "E" not in decimal_text(price)


@given(st.text(max_size=300))
def test_a_comment_is_nothing_but_comment(note: str):
    assert all(line.lstrip(" ").startswith("#") and line.isprintable() for line in comment_lines([note], 4))
