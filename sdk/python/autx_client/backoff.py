"""How long to wait before the next try: exponential with full jitter, so that
callers who failed together do not come back together."""

from __future__ import annotations

import random

BASE_S = 0.5
CAP_S = 8.0


def backoff(attempt: int) -> float:
    """Seconds; `attempt` counts from 0."""
    return random.uniform(0, min(CAP_S, BASE_S * 2.0 ** min(attempt, 32)))


def reconnect(attempt: int) -> float:
    """Seconds before a socket that was lost is tried again: many may have been
    lost with it, so already the first wait is spread over 4 s."""
    return backoff(attempt + 3)
