"""Positions in Azure Blob Storage: the vendor's store on Azurite."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from eventflows import Secret, open_subscriber
from eventflows.adapters._eventhubs_blob import BlobStore
from eventflows.adapters._eventhubs_positions import Positions
from eventflows.errors import AuthenticationError, BrokerError, ConfigError, NotFoundError
from eventflows.locate import resolve
from eventhubs_harness import EventHubsHarness
from eventhubs_use import ack, bodies, hub, publish, reading, take, to
from servers.azurite import KEY, azurite

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

OF = {"fully_qualified_namespace": "shop", "eventhub_name": "telemetry", "consumer_group": "g", "partition_id": "0"}


@pytest.fixture
def options() -> Mapping[str, Any]:
    """A container of its own."""
    return {
        "checkpoints": azurite().container(),
        "checkpoints_connection_string": Secret(azurite().connection_string),
    }


def store_of(options: Mapping[str, Any]) -> BlobStore:
    """The store itself."""
    given = options["checkpoints_connection_string"]
    return BlobStore(options["checkpoints"], {"checkpoints-connection-string": given})


def test_positions_are_kept_in_the_container(broker: EventHubsHarness, options: Mapping[str, Any]) -> None:
    """As the vendor's other clients write them; the next subscriber goes on there."""
    name = hub(broker)
    publish(broker, name, *to(0, b"1", b"2", b"3"))
    with reading(broker, name, **options) as made:
        assert ack(made, take(made, 3)[:2]) == []
    kept = {blob: found for blob, found in azurite().blobs(options["checkpoints"]).items() if "/checkpoint/0" in blob}
    assert kept[f"{broker._server.host}/{name}/$default/checkpoint/0"]["sequencenumber"] == "1"
    with reading(broker, name, **options) as made:
        assert bodies(take(made, 1)) == [b"3"]


def test_of_two_claims_of_one_entry_one_wins(options: Mapping[str, Any]) -> None:
    """Two members that saw the same: compared and set by the service."""
    first, second = store_of(options), store_of(options)

    async def race() -> list[Any]:
        [mine] = await first.claim_ownership([{**OF, "owner_id": "first"}])
        rows = [{**mine, "owner_id": owner} for owner in ("first", "second")]
        return [list(await store.claim_ownership([row])) for store, row in zip((first, second), rows, strict=True)]

    assert [len(taken) for taken in asyncio.run(race())] == [1, 0]


def test_claims_are_counted_in_the_container(options: Mapping[str, Any]) -> None:
    """Counts are checkpoints of a group of another name, so every store keeps them."""
    positions = Positions(store_of(options), "here")

    async def count() -> list[int]:
        found = [await positions.count(OF, -1), await positions.count(OF, -1)]
        await positions.discount(OF, -1)
        return [*found, await positions.count(OF, -1), await positions.count(OF, 7)]

    assert asyncio.run(count()) == [1, 2, 2, 1]


def test_check_says_that_the_container_can_be_written(broker: EventHubsHarness, options: Mapping[str, Any]) -> None:
    """Without writing to it."""
    found = open_subscriber(broker.source_url(hub(broker)), **{**broker.source_options, **options}).check()  # type: ignore[attr-defined]
    assert (found[-1].level, azurite().blobs(options["checkpoints"])) == ("ok", {})


def test_missing_container_is_named(broker: EventHubsHarness, options: Mapping[str, Any]) -> None:
    """By the check, and by the flow's first receive."""
    missing = {**options, "checkpoints": f"{azurite().url}/no-such-container"}
    made = open_subscriber(broker.source_url(hub(broker)), **{**broker.source_options, **missing})
    found = made.check()[-1]  # type: ignore[attr-defined]
    assert (found.level, "no-such-container" in found.text) == ("error", True)
    with pytest.raises(NotFoundError):
        asyncio.run(translated(missing))


def test_wrong_key_is_an_authentication_error_without_the_key(options: Mapping[str, Any]) -> None:
    """It is refused by the service, not by us."""
    wrong = "YS1rZXktdGhhdC1pcy13cm9uZw=="
    given = {**options, "checkpoints_connection_string": Secret(azurite().connection_string.replace(KEY, wrong))}
    with pytest.raises(AuthenticationError) as raised:
        asyncio.run(translated(given))
    assert wrong not in str(raised.value)


async def translated(options: Mapping[str, Any]) -> None:
    """Ask the store, and raise what the flow would hear."""
    from eventflows.adapters._eventhubs_errors import translate

    try:
        await store_of(options).list_ownership("shop", "telemetry", "g")
    except BrokerError:
        raise
    except Exception as error:
        raise translate(error, "here", "checkpoint") from error


@pytest.mark.parametrize(
    "kept",
    [
        "https://account.blob.core.windows.net",
        "https://account.blob.core.windows.net/a/b/",
        "https://account.blob.core.windows.net/container?sv=2024&sig=secret",
    ],
)
def test_url_that_is_no_container_is_refused_without_its_signature(kept: str) -> None:
    """A signature is a secret, and belongs into the connection string."""
    with pytest.raises(ConfigError) as raised:
        resolve("eventhubs://shop/telemetry?group=g", {"checkpoints": kept}, "source")
    assert "secret" not in str(raised.value)


def test_secret_of_a_store_needs_a_container() -> None:
    """It would be ignored otherwise."""
    with pytest.raises(ConfigError, match="container"):
        resolve(
            "eventhubs://shop/telemetry?group=g",
            {"checkpoints": "flows.db", "checkpoints_connection_string": Secret("x")},
            "source",
        )
