"""A subscriber: believes an event only if its signature verifies, and handles each of them once.

    pip install standardwebhooks
    REMORA_WEBHOOK_SECRET=whsec_… python examples/subscriber.py [PORT]

For a job's callback_url the secret is the account's: POST /v1/account/rotate-secret shows a new one, once. For a subscription
it is the subscription's own: POST /v1/subscriptions shows it, once. Remora sends to this machine only if it was started with
REMORA_EGRESS_ALLOW=127.0.0.0/8.
"""

from __future__ import annotations

import contextlib
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secret = os.environ.get("REMORA_WEBHOOK_SECRET", "")
if not secret.startswith("whsec_"):  # a key (rmk_…) would be taken for one, and no signature would ever fit
    sys.exit(
        "set REMORA_WEBHOOK_SECRET to the secret that signs the events: whsec_…, as Remora showed it when it was made"
    )
webhook = Webhook(secret)
seen: set[str] = set()  # in earnest: a table, in the transaction that handles the event


class Handler(BaseHTTPRequestHandler):
    """Takes events. Only a 2xx answer counts; anything else makes Remora send it again."""

    def do_POST(self) -> None:
        """Verify first, over the bytes as they came; then look at what they say."""
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > 16 * 1024 * 1024:
            return self.answer(413)
        body = self.rfile.read(int(length))
        try:
            event = webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except (WebhookVerificationError, ValueError):  # ValueError: what is signed, but is no JSON
            return self.answer(401)
        if self.headers["webhook-id"] not in seen:  # every attempt and every replay has the same id
            seen.add(self.headers["webhook-id"])
            job = event["data"].get("job") or {"id": self.headers["webhook-id"], "results": []}  # a ping has none
            print(event["type"], job["id"], *(result["url"] for result in job["results"]), flush=True)
        return self.answer(204)

    def answer(self, status: int) -> None:
        """An answer without a body."""
        self.send_response(status)
        self.end_headers()


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "9000"
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"cannot listen on port {port}: {error}")
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
