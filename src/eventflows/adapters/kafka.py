"""Apache Kafka: `kafka://`, through kafka-python or, with `client=librdkafka`, through confluent-kafka.

Names:
    A record is a *message*, a consumed one a *delivery*; a group on a topic is a *subscription*; a *lane* is one claim
    of a partition. Bodies are values, None is a tombstone; headers are text where they are UTF-8. The message id and
    the content type travel as the headers `ef-id` and `content-type`.

Guarantees:
    At least once. Messages of one partition, so of one key, are handed out in order. What is committed is the end of
    the unbroken finished prefix, on a rebalance before the partition moves. A new group begins at the oldest message.
    Publishing waits for all in-sync replicas; the same key goes to the same partition as with the Java client. With
    `guarantee="exactly-once"` outputs, dead-letter copies and positions of one cluster are committed as one.

Cannot:
    Hand out one message again, or keep dead letters: the core does both. A retried publish may repeat a message.

Limits:
    A message has 1,000,000 bytes at most, body, key and headers together, and the topic may allow less. Of several
    headers of one name the last one is seen; a header without a value is seen as empty text.

Native access:
    `Delivery.native` is kafka-python's `ConsumerRecord`, or confluent-kafka's `Message`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

import attrs

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_publisher import KafkaPublisher
from eventflows.adapters._kafka_records import MAX_BYTES
from eventflows.adapters._kafka_subscriber import KafkaSubscriber
from eventflows.errors import MissingExtraError
from eventflows.protocols import AdapterSpec, Capabilities, Location

__all__ = ["ADAPTER", "CAPABILITIES", "KafkaPublisher", "KafkaSubscriber"]

CAPABILITIES: Final = Capabilities(
    settle="watermark",
    ordering="lane",
    groups=True,
    replay=True,
    peek="free",
    min_slice=0.1,
    publish_window=5,
    max_receive=2000,
    max_publish_bytes=MAX_BYTES,
    transactions=True,
)


RD_CAPABILITIES: Final = attrs.evolve(CAPABILITIES, min_slice=0.02)

_MODULES: Final = {"kafka-python": ("kafka", "kafka"), "librdkafka": ("confluent_kafka", "librdkafka")}
"""Client to its module, and to the extra that brings it."""

_CODECS: Final = {"snappy": "snappy", "lz4": "lz4", "zstd": "zstandard"}
"""Codec to the module that kafka-python needs for it; librdkafka has them all."""


def _client_is_there(options: Mapping[str, object]) -> None:
    chosen = str(options.get("client", "kafka-python"))
    module, extra = _MODULES[chosen]
    if find_spec(module) is not None:
        return
    text = f"kafka:// with {chosen} needs that client. Install eventflows[{extra}]"
    for other, (its_module, _) in _MODULES.items():
        if other != chosen and find_spec(its_module) is not None:
            text += f", or choose the one that is installed, client={other}"
    raise MissingExtraError(f"{text}.")


def _capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    return RD_CAPABILITIES if options.get("client") == "librdkafka" else CAPABILITIES


def _subscriber(location: Location, options: Mapping[str, object]) -> KafkaSubscriber:
    _client_is_there(options)
    return KafkaSubscriber(location, options, _capabilities(location, options))


def _codec_is_there(options: Mapping[str, object]) -> None:
    module = _CODECS.get(str(options.get("compression", "none")))
    if options.get("client") == "librdkafka" or module is None or find_spec(module) is not None:
        return
    codec = options["compression"]
    raise MissingExtraError(
        f"compression={codec} with kafka-python needs a library. Install kafka-python[{codec}], or choose "
        "compression=gzip, or client=librdkafka."
    )


def _publisher(location: Location, options: Mapping[str, object]) -> KafkaPublisher:
    _client_is_there(options)
    _codec_is_there(options)
    return KafkaPublisher(location, options, _capabilities(location, options))


ADAPTER: Final = AdapterSpec(
    scheme="kafka",
    form="kafka://host1:9092,host2:9092/topic?group=g",
    capabilities=_capabilities,
    validate=given.validate,
    subscriber=_subscriber,
    publisher=_publisher,
    source_options=given.SOURCE,
    destination_options=given.DESTINATION,
)
