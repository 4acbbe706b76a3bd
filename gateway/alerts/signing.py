"""How an alert is signed: HMAC-SHA256 over its time and body, so that neither can be changed, or sent again later."""

import hashlib
import hmac
from typing import Final

TIMESTAMP_HEADER: Final = "x-mixgate-timestamp"
"""Unix seconds, in decimal."""
SIGNATURE_HEADER: Final = "x-mixgate-signature"
"""`v1=` and 64 hexadecimal digits."""
ID_HEADER: Final = "x-mixgate-alert-id"
"""The same for every try of one alert."""
TOLERANCE_S: Final = 300
"""How old an alert may be that is still believed."""
_SCHEME: Final = "v1="


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """What SIGNATURE_HEADER says: HMAC-SHA256 with the secret over `<timestamp>.<body>`."""
    digest = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"{_SCHEME}{digest}"


def verify(secret: str, timestamp: str, signature: str, body: bytes, *, now_unix_s: float) -> bool:
    """Whether an alert is from whoever has the secret, whole, and not older than TOLERANCE_S."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    fresh = abs(now_unix_s - int(timestamp)) <= TOLERANCE_S
    return hmac.compare_digest(sign(secret, int(timestamp), body).encode(), signature.encode()) and fresh
