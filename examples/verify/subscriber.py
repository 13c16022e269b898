"""A subscriber that verifies events by itself: `v1` with the standard library alone, `v1a` with `pip install cryptography`.

    REMORA_WEBHOOK_KEYS="whsec_… whpk_…" python examples/verify/subscriber.py [PORT]

Name the keys that you have, one or several: the secret (`whsec_…`) that a subscription showed when it was made or rotated,
its public key (`whpk_…`) where its `signatures` name `v1a`. One signature that fits one key is enough, so that old and new
keys may stand side by side during a rotation. Copy what is above `Handler`; the rest is one way to serve it.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300  # what is older was recorded, and is played again
MAX_SIGNATURES = 20  # that are looked at, whatever a stranger sends
MAX_BODY = 16 * 1024 * 1024  # bytes

Check = Callable[[str, bytes], bool]  # whether a signature is this key's, over these bytes


class Refused(Exception):
    """The message is not Remora's, or not of now. Answer 401; what it says is for your log."""


def check_of(key: str) -> Check:
    """How signatures are judged with one key. ValueError: it is none."""
    kind, raw = key[:6], base64.b64decode(key.partition("_")[2], validate=True)
    if kind == "whsec_" and 24 <= len(raw) <= 64:
        return lambda signature, content: hmac.compare_digest(_v1(raw, content), signature.encode("utf-8", "replace"))
    if key.startswith("whpk_") and len(raw) == 32:
        return _check_v1a(raw)
    raise ValueError("neither a secret (whsec_…) nor a public key (whpk_…)")


def _v1(secret: bytes, content: bytes) -> bytes:
    return b"v1," + base64.b64encode(hmac.digest(secret, content, "sha256"))


def _check_v1a(raw: bytes) -> Check:
    # Imported here, since the standard library has no Ed25519 and who verifies v1 needs nothing else.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    public_key = Ed25519PublicKey.from_public_bytes(raw)

    def check(signature: str, content: bytes) -> bool:
        version, _, encoded = signature.partition(",")
        try:
            public_key.verify(base64.b64decode(encoded, validate=True), content)
        except (ValueError, InvalidSignature):  # ValueError: no base64
            return False
        return version == "v1a"

    return check


def verify(checks: Sequence[Check], headers: Mapping[str, str], body: bytes, *, now_s: float) -> str:
    """Check one message.

    Args:
        checks: `check_of` each key.
        headers: With names in lower case.
        body: The bytes as they came: parsed and written again they are others.
        now_s: Seconds since 1970.

    Returns:
        The event's id, which is the same for every repeat: handle each id once.

    Raises:
        Refused: Do not believe it.
    """
    message_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp") or ""
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise Refused("webhook-id or webhook-timestamp is missing or malformed")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise Refused("webhook-timestamp is too far from now")
    content = f"{message_id}.{timestamp}.".encode("utf-8", "replace") + body
    signatures = (headers.get("webhook-signature") or "").split(" ")[:MAX_SIGNATURES]
    # All are compared, each in constant time: how long it takes tells nothing.
    if not any([check(signature, content) for check in checks for signature in signatures]):  # noqa: C419
        raise Refused("no signature fits")
    return message_id


seen: set[str] = set()  # in earnest: a table, in the transaction that handles the event


class Handler(BaseHTTPRequestHandler):
    """Takes events. Only a 2xx answer counts; anything else makes Remora send it again."""

    checks: Sequence[Check] = ()

    def do_POST(self) -> None:
        """Verify first; then look at what it says."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            message_id = verify(self.checks, headers, body, now_s=time.time())
        except Refused as error:
            print("refused:", error, file=sys.stderr, flush=True)
            return self.answer(401)
        if message_id not in seen:
            seen.add(message_id)
            print(json.loads(body)["type"], message_id, flush=True)
        return self.answer(204)

    def answer(self, status: int) -> None:
        """An answer without a body."""
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No line for every request."""


if __name__ == "__main__":
    try:
        Handler.checks = [check_of(key) for key in os.environ.get("REMORA_WEBHOOK_KEYS", "").split()]
    except ValueError as fault:
        sys.exit(f"REMORA_WEBHOOK_KEYS: {fault}")
    if not Handler.checks:
        sys.exit("set REMORA_WEBHOOK_KEYS to the secrets (whsec_…) and public keys (whpk_…) that you have")
    port = sys.argv[1] if len(sys.argv) > 1 else "9000"
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    except (OSError, ValueError, OverflowError) as fault:
        sys.exit(f"cannot listen on port {port}: {fault}")
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
