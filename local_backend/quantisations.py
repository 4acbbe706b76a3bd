"""How many bits a weight takes under each quantisation of a Mixtral, smallest first: file size over parameters.

Measured on published 8x7B files (46.70 billion parameters), so the larger embedding and router types are in the figure.
"""

from typing import Final

BITS_PER_WEIGHT: Final[dict[str, float]] = {
    "Q2_K": 2.97,
    "Q3_K_S": 3.50,
    "Q3_K_M": 3.86,
    "Q3_K_L": 4.14,
    "IQ4_XS": 4.31,
    "Q4_K_S": 4.58,
    "Q4_K_M": 4.87,
    "Q5_K_S": 5.52,
    "Q5_K_M": 5.69,
    "Q6_K": 6.57,
    "Q8_0": 8.50,
    "F16": 16.0,
}


def smaller_than(bits_per_weight: float) -> tuple[str, ...]:
    """Quantisations that take clearly fewer bits, best (largest) first."""
    names = [name for name, bits in BITS_PER_WEIGHT.items() if bits < bits_per_weight * 0.97]
    return tuple(reversed(names))
