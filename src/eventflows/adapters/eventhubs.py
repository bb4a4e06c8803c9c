"""Azure Event Hubs: `eventhubs://namespace/hub?group=$Default`.

Names:
    An event hub is a *topic*, its consumer group a *consumer group*; a *lane* is one claim of a partition. The *key*
    is the partition key. A *checkpoint* is the position of a group in a partition, kept in a store of ours.

Guarantees:
    At least once. Each partition keeps its order, so equal keys keep theirs. Checkpoints never pass an unfinished
    event. A group without checkpoints begins at the oldest event, unless `from` says otherwise. Partitions are shared
    with the other members of the group; a slow one delays neither the others nor the renewal of ownership.

Cannot:
    Events are not handed out again, delayed or dead-lettered by the service: the flow waits, or publishes a copy.
    There are no leases, no delivery counts and no transactions; claims of a position are counted, so that an event
    that kills its process is not tried for ever. Ids are those of the publisher. While a member reads a group, nobody
    can look at events beside it: `peek` looks through `$Default` then.

Limits:
    A publication has at most 1 MB, all of it (256 KB on Basic); the link says which. Checkpoints are written after
    500 events, at most once a second, or after 5 seconds, when a claim ends and when a flow ends: so much may come
    again after a crash, or when another member takes a partition by force. They are kept in a container of Azure Blob
    Storage, in a SQLite file of one machine, or in memory when that is asked for.
    Source: "Event Hubs quotas" and "Event processor host", learn.microsoft.com; the behaviour of the client was
    measured with azure-eventhub 5.15.1.

Native access:
    `Delivery.native` is the client's `EventData`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

from eventflows.adapters._eventhubs_place import DESTINATION, FORM, SOURCE, validate
from eventflows.adapters._eventhubs_publish import EventHubsPublisher
from eventflows.adapters._eventhubs_subscriber import EventHubsSubscriber
from eventflows.errors import MissingExtraError
from eventflows.protocols import AdapterSpec, Capabilities, Location, Subscriber

PUBLICATION_BYTES: Final = 1_048_576  # of a publication, on Standard and above ("Event Hubs quotas")

CAPABILITIES: Final = Capabilities(
    settle="watermark",
    release="never",
    ordering="lane",
    groups=True,
    replay=True,
    peek="free",
    max_receive=1000,
    max_publish_bytes=PUBLICATION_BYTES,
)


def _capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    return CAPABILITIES


def _needs_client() -> None:
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.eventhub") is None:
        raise MissingExtraError("eventhubs:// needs the Event Hubs client. Install eventflows[eventhubs].")


def _subscriber(location: Location, options: Mapping[str, object]) -> Subscriber:
    _needs_client()
    return EventHubsSubscriber(location, options, CAPABILITIES)


def _publisher(location: Location, options: Mapping[str, object]) -> EventHubsPublisher:
    _needs_client()
    return EventHubsPublisher(location, options, CAPABILITIES)


ADAPTER: Final = AdapterSpec(
    scheme="eventhubs",
    form=FORM,
    capabilities=_capabilities,
    validate=validate,
    subscriber=_subscriber,
    publisher=_publisher,
    source_options=SOURCE,
    destination_options=DESTINATION,
)
