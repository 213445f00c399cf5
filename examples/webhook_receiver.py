"""Receives the webhook, and believes it only if its signature is right.

pip install standardwebhooks; WEBHOOK_SECRET=whsec_... python webhook_receiver.py

WEBHOOK_SECRET is the signing secret of the request's spec.webhook.secretKeyRef, PORT by default
8080. The operator sends to private addresses only where the chart's webhook.allowedNetworks allows.
"""

from __future__ import annotations

import logging
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SECRET = os.environ["WEBHOOK_SECRET"]
logging.basicConfig(level=logging.INFO)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to a genuine message and 401 to any other."""

    def do_POST(self) -> None:
        """Verify first, then read. The same webhook-id may come twice: handle it once."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            message = Webhook(SECRET).verify(body, {k.lower(): v for k, v in self.headers.items()})
        except WebhookVerificationError:
            self.send_response(401)
        else:
            data = message["data"]
            logging.info("%s %s: %s", data["request_id"], data["status"], data["csv_url"])
            self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("", int(os.environ.get("PORT", "8080"))), Receiver).serve_forever()
