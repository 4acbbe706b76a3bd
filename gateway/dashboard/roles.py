"""What somebody who is signed in may see."""

from typing import Literal

Role = Literal["admin", "viewer"]
"""viewer: everything but who asked."""
