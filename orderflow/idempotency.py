"""What an Idempotency-Key may be: the same for the service that takes one, the client that sends one, and OpenAPI."""

from __future__ import annotations

import re

KEY = re.compile("[!-~]{1,255}")
KEY_RULE = "1 to 255 visible ASCII characters"
