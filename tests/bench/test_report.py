"""How figures read."""

import pytest

from bench.figures import Judgement
from bench.report import print_bars


@pytest.mark.parametrize(
    ("value", "limit", "unit", "shown"),
    [
        (0.048412, 2.0, "ms", "0.048 2"),
        (0.18895, 2.0, "ms", "0.19 2"),
        (0.0004, 0.3, "s", "0.0004 0.30"),
        (0.012493, 1 / 90, "x LiteLLM's best", "1/80 1/90"),
        (8.6036, 6.0, "x nginx", "8.60 6"),
        (0, 0, "count", "0 0"),
        (None, 2.0, "ms", "- 2"),
    ],
)
def test_an_amount_is_a_number_and_a_small_ratio_a_fraction(capsys, value, limit, unit, shown):
    print_bars("Bars", [Judgement("bar", unit, limit, None, value, "PASS")])
    row = capsys.readouterr().out.splitlines()[-1]
    assert " ".join(row.partition(unit)[2].split()[:2]) == shown
