"""What the embedded broker can, as itself or as the broker that it plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from eventflows.adapters._local_emulate import profile_of
from eventflows.protocols import (
    Capabilities,
    Location,
)

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_HEADERS: Final = 256
LONGEST_DELAY: Final = 30 * 86_400.0
CAPABILITIES: Final = Capabilities(
    settle="message",
    redeliver=True,
    redeliver_delay=LONGEST_DELAY,
    release="free",
    dead_letter=True,
    delivery_count=True,
    lease="message",
    ordering="key",
    groups=True,
    replay=True,
    durable=False,
    peek="free",
    max_receive=1000,
    max_publish_bytes=MAX_BYTES,
    max_headers=MAX_HEADERS,
)


def capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    """Give what it can with these options."""
    profile = profile_of(location, options)
    able = CAPABILITIES if profile is None else profile.capabilities
    dead_letter = able.dead_letter and "dead-letter" not in options
    return attrs.evolve(able, durable=options.get("file") is not None, dead_letter=dead_letter)
