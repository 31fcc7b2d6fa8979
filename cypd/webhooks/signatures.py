"""What a delivery is signed with, so that a receiver can tell it from anyone else's request."""

import hashlib
import hmac


def sign(secret: str, body: bytes, timestamp: int) -> dict[str, str]:
    """Return the headers that sign ``body`` at ``timestamp`` (Unix seconds).

    ``X-Webhook-Signature-V2`` covers the timestamp too, so that a receiver can refuse a replay.
    Without a secret there is the timestamp alone: a signature that anybody can make says nothing.
    """
    headers = {"X-Webhook-Timestamp": str(timestamp)}
    if secret:
        stamped = f"{timestamp}.".encode() + body
        headers["X-Webhook-Signature"] = f"sha256={_mac(secret, body)}"
        headers["X-Webhook-Signature-V2"] = f"t={timestamp},v1={_mac(secret, stamped)}"
    return headers


def _mac(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
