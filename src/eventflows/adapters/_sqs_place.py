"""Where a queue is: every form of its URL, taken apart without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from eventflows.errors import ConfigError
from eventflows.protocols import Location

FORM: Final = "sqs://region/account/queue"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
"""Source: Amazon SQS API reference, CreateQueue, QueueName."""
_ACCOUNT: Final = re.compile(r"\d{12}|queue")
"""Local servers write `queue` where they have no accounts."""
_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d+|[a-z]+")
_PLAIN: Final = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue|queue)\.amazonaws\.com(?:\.cn)?")
"""Hosts that the client finds by the region alone; `queue.amazonaws.com` is us-east-1."""
_REGIONAL: Final = re.compile(r"(?:^|\.)(?:sqs|sqs-fips)\.([a-z0-9-]+)\.")


@attrs.frozen(kw_only=True)
class Place:
    """One queue, as far as its URL says."""

    name: str
    """Of the queue."""
    text: str
    """The URL, as shown."""
    account: str | None = None
    """The account that owns it; None: the caller's own."""
    region: str | None = None
    """None: the client's default."""
    endpoint: str | None = None
    """Where requests go; None: where the client finds the region."""
    url: str | None = None
    """The queue URL; None: the service must be asked."""

    @property
    def fifo(self) -> bool:
        """Whether it is a FIFO queue: its name ends in .fifo, and no other's does."""
        return self.name.endswith(".fifo")


def place_of(location: Location, options: Mapping[str, object]) -> Place:
    """Take a URL apart.

    Raises:
        ConfigError: It names no queue; the text says what was expected.
    """
    endpoint = options.get("endpoint")
    region = options.get("region")
    found = _short(location) if location.scheme == "sqs" else _queue_url(location)
    if region is not None and found.region not in (None, region):
        raise ConfigError(f"{location.text}: it is in {found.region}, and region={region} says otherwise. Give one.")
    found = attrs.evolve(found, region=found.region if region is None else str(region))
    if endpoint is not None:
        found = attrs.evolve(found, endpoint=str(endpoint))
    if found.url is None and found.account is not None:
        found = attrs.evolve(found, url=f"{_base(found)}/{found.account}/{found.name}")
    return found


def sibling(url: str, arn: str) -> str:
    """Give the URL of the queue that an ARN names, beside another: same service, same region.

    A dead-letter queue is always in the region and account of its source.
    """
    account, name = arn.split(":")[-2:]
    return "/".join([*url.split("/")[:-2], account, name])


def _base(place: Place) -> str:
    if place.endpoint is not None:
        return place.endpoint.rstrip("/")
    return f"https://sqs.{place.region}.amazonaws.com{'.cn' if str(place.region).startswith('cn-') else ''}"


def _short(location: Location) -> Place:
    parts = location.path.split("/")
    region = location.authority or None
    if region is not None and not _REGION.fullmatch(region):
        raise ConfigError(f"{location.text}: {region!r} is not a region; write {FORM}, or the queue URL itself.")
    if len(parts) == 2 and not _ACCOUNT.fullmatch(parts[0]):
        raise ConfigError(f"{location.text}: {parts[0]!r} is not an account of 12 digits; write {FORM}.")
    if len(parts) > 2:
        raise ConfigError(f"{location.text}: too many parts; write {FORM}.")
    account = parts[0] if len(parts) == 2 else None
    return Place(name=_name(location, parts[-1]), text=location.text, account=account, region=region)


def _queue_url(location: Location) -> Place:
    parts = location.path.split("/")
    if len(parts) < 2 or not _ACCOUNT.fullmatch(parts[-2]):
        raise ConfigError(f"{location.text} is not a queue URL; those end in /account/queue.")
    base = f"{location.scheme}://{location.authority}"
    plain = _PLAIN.fullmatch(location.authority)
    if plain:
        region, endpoint = plain[1] or plain[2] or "us-east-1", None
    else:
        regional = _REGIONAL.search(location.authority)
        in_path = parts[1] if len(parts) == 4 and parts[0] == "queue" else None  # LocalStack's "path" form
        region, endpoint = regional[1] if regional else in_path, base
    name = _name(location, parts[-1])
    url = "/".join([base, *parts[:-1], name])
    return Place(name=name, text=location.text, account=parts[-2], region=region, endpoint=endpoint, url=url)


def _name(location: Location, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{location.text}: {name!r} is not a queue's name; at most 80 letters, digits, '-' and '_', "
            f"with .fifo at the end of a FIFO queue's. Write {FORM}."
        )
    return name
