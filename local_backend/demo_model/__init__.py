"""The bundled demonstration model: a tiny Mixtral trained from text that this project wrote itself.

`MODEL_CARD.md` says what it is and is not; `train.py` makes it again. Importing this costs nothing: the training
modules need packages that the product does not.
"""

from pathlib import Path
from typing import Final

DEMO_FILE: Final = Path(__file__).with_name("tiny-mixtral-q8.gguf")
DEMO_SHA256: Final = "ee7a8d8971d5ef2a6c36862593e2db9678fc1548834120e13e103482c891bc3d"
DESCRIPTION: Final = (
    "Demonstration model: a tiny Mixtral (3.6 million parameters) that shows that everything works. "
    "Its answers are not to be relied on."
)
