"""The stand-in, as the vendor's own Event Hubs client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.exceptions import ConnectError

from amqp import AzureServer

NAME = "telemetry"


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """One stand-in for the module."""
    with AzureServer() as server:
        yield server


@pytest.fixture(autouse=True)
def hub(azure: AzureServer) -> None:
    """A fresh hub of two partitions for each test."""
    azure.call(azure.broker.hubs.clear)
    azure.hub(NAME, partitions=2, groups=("other",))


def producer(azure: AzureServer, name: str = NAME) -> EventHubProducerClient:
    """The vendor's producer, without retries of its own."""
    return EventHubProducerClient.from_connection_string(azure.connection_string, eventhub_name=name, retry_total=0)


def publish(azure: AzureServer, *bodies: bytes, **where: Any) -> None:
    """Publish one batch."""
    with producer(azure) as client:
        batch = client.create_batch(**where)
        for body in bodies:
            batch.add(EventData(body))
        client.send_batch(batch)


def read(azure: AzureServer, count: int, partition: str = "0", **how: Any) -> list[Any]:
    """Read so many events of a partition."""

    async def run() -> list[Any]:
        client = EventHubConsumerClient.from_connection_string(
            azure.connection_string, "$Default", eventhub_name=NAME, retry_total=0
        )
        got: list[Any] = []
        done = asyncio.Event()

        async def take(_: Any, events: list[Any]) -> None:
            got.extend(events)
            if len(got) >= count:
                done.set()

        async with client:
            task = asyncio.ensure_future(
                client.receive_batch(take, partition_id=partition, **{"starting_position": "-1"} | how)
            )
            await asyncio.wait_for(done.wait(), 15)
        task.cancel()  # it would sleep until its next balancing
        await asyncio.gather(task, return_exceptions=True)
        return got

    return asyncio.run(run())


def test_events_of_a_partition_arrive_in_order(azure: AzureServer) -> None:
    """Numbers and offsets grow, the offsets are text, and the bodies are those that were sent."""
    publish(azure, *(b"%d" % number for number in range(5)), partition_id="0")
    events = read(azure, 5)
    assert [b"".join(one.body) for one in events] == [b"0", b"1", b"2", b"3", b"4"]
    assert [one.sequence_number for one in events] == [0, 1, 2, 3, 4]
    assert {type(one.offset) for one in events} == {str}


def test_equal_keys_share_a_partition(azure: AzureServer) -> None:
    """Everything of one key is in one partition."""
    for number in range(4):
        publish(azure, b"%d" % number, partition_key="k")
    hub = azure.broker.hubs[NAME]
    assert sorted(len(one.events) for one in hub.partitions) == [0, 4]


@pytest.mark.parametrize(("position", "inclusive", "first"), [(2, True, 2), (2, False, 3), ("-1", False, 0)], ids=str)
def test_reading_begins_where_it_is_told_to(azure: AzureServer, position: Any, inclusive: bool, first: int) -> None:
    """A sequence number, with itself or without, or the beginning."""
    publish(azure, *(b"%d" % number for number in range(5)), partition_id="0")
    events = read(azure, 5 - first, starting_position=position, starting_position_inclusive=inclusive)
    assert [one.sequence_number for one in events] == list(range(first, 5))


def test_an_offset_is_a_position(azure: AzureServer) -> None:
    """Reading after an offset begins with the event behind it."""
    publish(azure, b"0", b"1", b"2", partition_id="0")
    middle = read(azure, 3)[1].offset
    assert [one.sequence_number for one in read(azure, 1, starting_position=middle)] == [2]


def test_runtime_metrics_come_with_the_events(azure: AzureServer) -> None:
    """A reader that asks for them learns of the newest event with each that it gets."""
    publish(azure, b"0", b"1", partition_id="0")
    [first, _] = read(azure, 2, track_last_enqueued_event_properties=True)
    assert first.raw_amqp_message.delivery_annotations[b"last_enqueued_sequence_number"] == 1


def test_a_hub_describes_itself_and_its_partitions(azure: AzureServer) -> None:
    """Names, counts and the ends of the logs."""
    publish(azure, b"0", b"1", partition_id="1")
    with producer(azure) as client:
        described, partition = client.get_eventhub_properties(), client.get_partition_properties("1")
    assert (described["partition_ids"], partition["last_enqueued_sequence_number"]) == (["0", "1"], 1)


def test_a_missing_hub_is_refused(azure: AzureServer) -> None:
    """The refusal is that of the service."""
    with pytest.raises(ConnectError), producer(azure, "no-such") as client:
        client.get_eventhub_properties()


def test_a_higher_epoch_takes_the_partition(azure: AzureServer) -> None:
    """The old reader's link is taken; the new one reads on."""
    publish(azure, b"0", partition_id="0")

    async def run() -> tuple[list[str], int]:
        errors: list[str] = []
        got = [asyncio.Event(), asyncio.Event()]

        def taker(index: int) -> Any:
            async def take(_: Any, events: Any) -> None:
                if events:
                    got[index].set()

            return take

        async def failed(_: Any, error: Exception) -> None:
            errors.append(str(getattr(error, "error", error)))

        clients = [
            EventHubConsumerClient.from_connection_string(
                azure.connection_string, "$Default", eventhub_name=NAME, retry_total=0
            )
            for _ in range(2)
        ]
        tasks = []
        for index, client in enumerate(clients):
            how: dict[str, Any] = {"partition_id": "0", "owner_level": index, "starting_position": "-1"}
            tasks.append(asyncio.ensure_future(client.receive_batch(taker(index), on_error=failed, **how)))
            await asyncio.wait_for(got[index].wait(), 15)
        readers = azure.call(lambda: [one.epoch for one in azure.broker.hubs[NAME].partitions[0].readers])
        for client in clients:
            await client.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return errors, readers

    _, readers = asyncio.run(run())
    assert readers == [1]
