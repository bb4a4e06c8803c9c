"""The embedded broker under test while it plays another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import attrs

from eventflows.adapters._local_member import Place
from eventflows.adapters.local import LocalBroker, local_broker
from eventflows.locate import capabilities
from eventflows.message import Message
from eventflows.protocols import Capabilities, Pending, PublishResult, Subscriber
from local_harness import ALONE, LocalFileHarness, LocalHarness

LEASELESS = "has no lease that work could outlast; its claims have no end"


class Playing(LocalHarness):
    """Ground: subclasses say what is played."""

    play: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    replay_options: ClassVar[Mapping[str, object]] = {}

    def fresh(self) -> str:
        """FIFO queues have a name of their own."""
        return super().fresh() + self.suffix

    def source_url(self, name: str) -> str:
        """Say what is played in the URL."""
        url = super().source_url(name)
        return f"{url}{'&' if '?' in url else '?'}emulate={self.play}"


class Log(Playing):
    """A log."""

    native_type = Place
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        **{case: why for case, why in (LocalHarness.allowed_skips or {}).items() if case not in ("C33", "C34", "C52")},
        "C40": LEASELESS,
        "C27": "has no lease that could be lost; C35 asks the same of a lost lane",
        "C42": LEASELESS,
        "C60": LEASELESS,
        "C53": "fetches nothing ahead, so it has no bytes fetched to be compared",
        "R08": LEASELESS,
        "R15": LEASELESS,
        "R30": "has no lease that could run out while the destination is frozen",
        "R38": "has no lease that could be lost; a lane that is lost is in test_emulated_logs.py",
    }

    def short_lease(self) -> Mapping[str, object] | None:  # type: ignore[override]
        """There is none."""
        return None

    def _broker(self, name: str) -> LocalBroker:
        return local_broker(self.source_url(name))

    def committed(self, name: str, group: str | None = None) -> Mapping[str, int]:
        """Look into the log."""
        return {str(p): at for p, at in self._broker(name).log.committed(group or "default").items()}

    def revoke(self, subscriber: Subscriber) -> bool:
        """Expel every member of its group."""
        location = subscriber._location  # type: ignore[attr-defined]
        self._broker(location.authority).log.expel("default")
        return True

    def make_gaps(self, name: str) -> list[bytes]:
        """Leave offsets out before each message."""
        log = self._broker(name).log
        for number in range(5):
            log.skip(2)
            log.append([Message(b"%d" % number, key="one")])
        log.skip(3)
        return [b"0", b"1", b"2", b"3", b"4"]

    def recreate(self, name: str) -> bool:
        """Make the topic anew."""
        self._broker(name).log.recreate()
        return True

    def generation(self, name: str, group: str | None = None) -> int:
        """Count the rebalances."""
        return self._broker(name).log.generation(group or "default")


class KafkaHarness(Log):
    """`emulate=kafka`, in memory."""

    name = "local as Kafka, in memory"
    play = "kafka"


class EventHubsHarness(Log):
    """`emulate=eventhubs`, in memory."""

    name = "local as Event Hubs, in memory"
    play = "eventhubs"


UNORDERED: Final = {
    **dict.fromkeys(("R19", "R37", "R39"), "keeps no order of keys"),
    "R32": "has no groups, so two flows cannot read one message",
}


class SqsHarness(Playing):
    """`emulate=sqs`, in memory."""

    name = "local as SQS, in memory"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {**(LocalHarness.allowed_skips or {}), **UNORDERED}
    play = "sqs"


_KEYS: Final = itertools.count()


class Keyed:
    """A publisher that gives a key of its own to what has none: a FIFO queue takes nothing without."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher

    def __enter__(self) -> Keyed:
        self._publisher.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    def send(self, batch: Sequence[Message]) -> Pending:
        """Send with keys."""
        sent: Pending = self._publisher.send([_keyed(message) for message in batch])
        return sent

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish with keys."""
        results: list[PublishResult] = self._publisher.publish([_keyed(m) for m in batch], timeout=timeout)
        return results


def _keyed(message: Message) -> Message:
    return attrs.evolve(message, key=f"own-{next(_KEYS):08}") if message.key is None else message


class SqsFifoHarness(Playing, LocalFileHarness):
    """`emulate=sqs`, a FIFO queue, in a file."""

    name = "local as SQS FIFO, in a file"
    play = "sqs"
    suffix = ".fifo"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        **(LocalFileHarness.allowed_skips or {}),
        "R32": UNORDERED["R32"],
    }

    @property
    def capabilities(self) -> Capabilities:
        """Those of a name that ends as FIFO queues do."""
        return capabilities(self.source_url("capabilities.fifo"), {}, "source")

    @property
    def body_limit(self) -> int:
        """The key needs room, too."""
        return (self.capabilities.max_publish_bytes or 0) - len("own-00000000")

    def publisher(self, name: str, **options: Any) -> Any:
        """Give keys to what has none."""
        return Keyed(super().publisher(name, **options))


class ServiceBusHarness(Playing):
    """`emulate=servicebus`, in memory."""

    name = "local as Service Bus, in memory"
    allowed_skips: ClassVar[Mapping[str, str] | None] = SqsHarness.allowed_skips
    play = "servicebus"


class KafkaFileHarness(KafkaHarness, LocalFileHarness):
    """`emulate=kafka`, in a file."""

    name = "local as Kafka, in a file"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        case: why for case, why in (Log.allowed_skips or {}).items() if why != ALONE
    }


class SqsFileHarness(SqsHarness, LocalFileHarness):
    """`emulate=sqs`, in a file."""

    name = "local as SQS, in a file"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {**(LocalFileHarness.allowed_skips or {}), **UNORDERED}
