"""Webhooks: which URLs are allowed, and their delivery."""

import sys

# The command of httpx imports rich, click and pygments: as much again as all the rest of it.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
