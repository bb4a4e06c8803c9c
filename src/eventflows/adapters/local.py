"""The embedded broker: `local://`, in memory or in one SQLite file.

Names:
    A *queue* and a *topic* are the same here: a name. Each *group* (default "default") is a *subscription* of its
    own; subscribers of one group share its messages. A delivery has a *lease* of 30 seconds.

Guarantees:
    At least once. Messages of one key are handed out in order, to one subscriber at a time. A new group begins at
    the oldest message that is kept. Memory lives as long as the process, whatever is closed. In a file, what was
    published or settled before a process was killed is kept, and what a dead process held comes back at once.

    With `emulate=kafka`, `eventhubs`, `sqs` (FIFO where the name ends in `.fifo`) or `servicebus` it can no more than
    these: logs have partitions, offsets and positions, queues count what is handed back, and sizes are limited.

Cannot:
    Messages without a key have no order: they come shuffled. There are no lanes and no transactions. A tombstone
    (a body of None) is refused.

Limits:
    A message may have 16 MiB and 256 headers, our own limits: beyond them a broker is the wrong tool. One file is
    shared by processes of one machine, on a local disk; it is neither removed nor replaced while one of them runs.

Native access:
    `Delivery.native` is a `Receipt`: the grant it came in, and its index there; on a log it is partition and offset.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal

from eventflows.adapters._local_able import CAPABILITIES, LONGEST_DELAY, MAX_BYTES, MAX_HEADERS, capabilities
from eventflows.adapters._local_broker import LocalBroker, forget, local_broker
from eventflows.adapters._local_chunk import Receipt
from eventflows.adapters._local_emulate import NAMES, profile_of
from eventflows.adapters._local_faults import FakeClock
from eventflows.adapters._local_publisher import LocalPublisher
from eventflows.adapters._local_subscriber import LEASE, LocalSubscriber
from eventflows.errors import ConfigError
from eventflows.protocols import AdapterSpec, Location, Option, Publisher, Subscriber

__all__ = [
    "ADAPTER",
    "CAPABILITIES",
    "LEASE",
    "LONGEST_DELAY",
    "MAX_BYTES",
    "MAX_HEADERS",
    "FakeClock",
    "LocalBroker",
    "LocalPublisher",
    "LocalSubscriber",
    "Receipt",
    "forget",
    "local_broker",
]


def _validate(location: Location, options: Mapping[str, object], side: Literal["source", "destination"]) -> None:
    if not location.authority:
        raise ConfigError(f"{location.text}: the name is missing; write local://orders.")
    if location.path:
        raise ConfigError(
            f"{location.text}: local:// takes a name and no path; a file is given as "
            f"local://{location.authority}?file={location.path}."
        )
    profile = profile_of(location, options)
    refused = {"partitions"} if profile is None else profile.refused
    for name in sorted(refused & options.keys()):
        what = "without emulate=kafka or emulate=eventhubs" if profile is None else f"with emulate={profile.name}"
        raise ConfigError(f"{location.text}: {name} has no meaning {what}; leave it out.")


def _subscriber(location: Location, options: Mapping[str, object]) -> Subscriber:
    profile = profile_of(location, options)
    if profile is None:
        return LocalSubscriber(location, options)
    if profile.log:
        from eventflows.adapters._local_logs import LogSubscriber

        return LogSubscriber(location, options, capabilities(location, options))
    from eventflows.adapters._local_queues import QueueSubscriber

    return QueueSubscriber(location, options, profile)


def _publisher(location: Location, options: Mapping[str, object]) -> Publisher:
    profile = profile_of(location, options)
    if profile is None:
        return LocalPublisher(location, options)
    if profile.log:
        from eventflows.adapters._local_logs import LogPublisher

        return LogPublisher(location, options, capabilities(location, options), profile)
    from eventflows.adapters._local_queues import QueuePublisher

    return QueuePublisher(location, options, profile)


def _some_text(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _positive(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 < number < float("inf"):
        raise ValueError("expected seconds, more than 0")
    return number


def _not_negative(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("expected seconds, 0 or more")
    return number


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("expected a whole number")
    return int(value)


def _sync(value: object) -> str:
    if value not in ("normal", "full"):
        raise ValueError('expected "normal" or "full"')
    return str(value)


def _flag(value: object) -> bool:
    if value not in ("", True):
        raise ValueError("it takes no value")
    return True


def _emulated(value: object) -> str:
    if value not in NAMES:
        raise ValueError(f"expected {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    return str(value)


def _partitions(value: object) -> int:
    number = _whole(value)
    if not 1 <= number <= 1000:
        raise ValueError("expected a whole number from 1 to 1000")
    return number


_COMMON: Final = (
    Option(name="file", parse=_some_text, about="the SQLite file to share between processes (default: memory)"),
    Option(name="sync", parse=_sync, about='"full" survives power loss, too (default "normal")'),
    Option(name="seed", parse=_whole, about="of the shuffle of messages without a key (default: by chance)"),
    Option(name="emulate", parse=_emulated, about="plays kafka, eventhubs, sqs or servicebus (default: itself)"),
    Option(name="partitions", parse=_partitions, about="of a log, when it is made (default 4)"),
)

ADAPTER: Final = AdapterSpec(
    scheme="local",
    form="local://name?file=flows.db",
    capabilities=capabilities,
    validate=_validate,
    subscriber=_subscriber,
    publisher=_publisher,
    source_options=(
        *_COMMON,
        Option(name="group", parse=_some_text, about='the group whose messages are shared (default "default")'),
        Option(name="lease", parse=_positive, about="seconds for which a message is held (default 30)"),
        Option(name="retain", parse=_not_negative, about="seconds for which done messages are kept (default 0)"),
        Option(name="dead-letter", parse=_flag, about="reads the group's dead letters", url_only=True),
    ),
    destination_options=_COMMON,
)
