"""Options of `sqs://`, what a queue can do, and what of a URL can be told wrong before anything is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from eventflows.adapters._sqs_held import LONGEST_HOLD
from eventflows.adapters._sqs_place import FORM, place_of
from eventflows.adapters._sqs_wire import MAX_BYTES
from eventflows.errors import ConfigError
from eventflows.protocols import Capabilities, Location, Option

__all__ = ["CAPABILITIES", "DESTINATION", "FORM", "SOURCE", "capabilities", "number", "validate"]

VISIBILITY: Final = 60.0
RECEIVERS: Final = 4
MOST_RECEIVERS: Final = 10
_ROLE: Final = re.compile(r"arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+")

CAPABILITIES: Final = Capabilities(
    settle="message",
    redeliver=True,
    redeliver_delay=float(LONGEST_HOLD),
    release="counts",
    dead_letter=False,  # known when the redrive policy has been read
    delivery_count=True,
    lease="message",
    lease_limit=float(LONGEST_HOLD),
    stateless=True,
    peek="counts",
    publish_window=4,
    max_receive=1000,
    max_publish=10,
    max_publish_bytes=MAX_BYTES,
)
"""Of a standard queue. Headers have no limit of number: what ten attributes do not hold is packed into one."""


def capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    """Say what is known before connecting: whether the queue is FIFO."""
    if not place_of(location, options).fifo:
        return CAPABILITIES
    return attrs.evolve(CAPABILITIES, ordering="lane", needs_key=True, publish_window=1)


def number(options: Mapping[str, object], name: str) -> float:
    """Give the value of a numeric option."""
    value = options.get(name, {"visibility": VISIBILITY, "receivers": RECEIVERS}[name])
    return float(str(value))


def validate(location: Location, options: Mapping[str, object], side: Literal["source", "destination"]) -> None:
    """Check what can be checked without asking anybody."""
    place_of(location, options)
    if options.get("external_id") is not None and options.get("role_arn") is None:
        raise ConfigError(f"{location.text}: external_id= goes with role_arn=, which is missing.")


def _some_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _role(value: object) -> str:
    if not isinstance(value, str) or not _ROLE.fullmatch(value):
        raise ValueError("expected the ARN of a role, arn:aws:iam::123456789012:role/name")
    return value


def _endpoint(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#@\s]*)?", value):
        raise ValueError("expected http://host:port or https://host")
    return value


def _visibility(value: object) -> int:
    return _whole(value, 1, LONGEST_HOLD)


def _receivers(value: object) -> int:
    return _whole(value, 1, MOST_RECEIVERS)


def _whole(value: object, least: int, most: int) -> int:
    text = str(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"\d+(\.0*)?", text) or not least <= int(float(text)) <= most:
        raise ValueError(f"expected a whole number from {least} to {most}")
    return int(float(text))


def _flag(value: object) -> bool:
    if value not in ("", True):
        raise ValueError("it takes no value")
    return True


DESTINATION: Final = (
    Option(name="profile", parse=_some_text, about="the profile of ~/.aws/config (default: the ordinary chain)"),
    Option(name="region", parse=_some_text, about="the region, where the URL does not say it"),
    Option(name="endpoint", parse=_endpoint, about="where requests go, such as a local server (default: AWS)"),
    Option(name="role_arn", parse=_role, about="the role to assume (default: none)"),
    Option(
        name="external_id", parse=_some_text, about="the external id that the role's trust asks for (default: none)"
    ),
)
SOURCE: Final = (
    *DESTINATION,
    Option(name="visibility", parse=_visibility, about="seconds of a lease, renewed while it is held (default 60)"),
    Option(name="receivers", parse=_receivers, about="polls at once while there is work, 1 to 10 (default 4)"),
    Option(name="dead-letter", parse=_flag, about="reads the queue that the redrive policy names", url_only=True),
)
