"""Messages are frozen; deliveries are built when somebody asks, once each."""

from __future__ import annotations

import copy
import pickle
import threading

import attrs
import pytest

from eventflows.errors import ConfigError
from eventflows.message import Batch, Chunk, Delivery, Lane, Message, Messages

BODY = b"hunter2"


def delivery(body: bytes | None = BODY, index: int = 0) -> Delivery:
    """Any delivery."""
    return Delivery(message=Message(body, key="k"), source="local://a", position=str(index), identity=str(index))


class Built:
    """A chunk, and which of its deliveries were built, in order."""

    def __init__(self, count: int = 4, **columns: object) -> None:
        self.asked: list[int] = []
        bodies: list[bytes | None] = [b"x" * index for index in range(count)]
        self.chunk = Chunk(bodies, self.build, **columns)  # type: ignore[arg-type]

    def build(self, index: int) -> Delivery:
        """Note the index."""
        self.asked.append(index)
        return delivery(index=index)


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Message)])
def test_message_is_frozen(field: str) -> None:
    """Nothing of a message changes."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(Message(BODY), field, None)


def test_message_takes_only_its_body_by_position() -> None:
    """Everything else has a name in the call."""
    with pytest.raises(TypeError):
        Message(BODY, {"h": "1"})  # type: ignore[misc]


@pytest.mark.parametrize(
    "shown", [Message(BODY, headers={"h": "hunter2"}), delivery(), Messages([BODY]), Built().chunk], ids=type
)
def test_repr_shows_no_body(shown: object) -> None:
    """Whatever gets into a log says how large a body is, and not what it is."""
    assert "hunter2" not in repr(shown)


def test_message_repr_shows_the_size() -> None:
    """The body is shown as its size; a tombstone as None."""
    assert ["<7 bytes>" in repr(Message(BODY)), "body=None" in repr(Message(None))] == [True, True]


@pytest.mark.parametrize(
    "message",
    [
        Message(BODY),
        Message(None, key="k"),
        Message(BODY, headers={"h": "1"}, key="k", id="i", content_type="text/plain", options={"delay": 3}),
    ],
    ids=["bare", "tombstone", "full"],
)
@pytest.mark.parametrize("crossed", [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy])
def test_message_crosses_processes(message: Message, crossed: object) -> None:
    """A message can be pickled and copied, whatever it holds."""
    assert crossed(message) == message  # type: ignore[operator]


@pytest.mark.parametrize("field", ["message", "source", "position", "identity", "lane", "attempt", "enqueued_at"])
def test_delivery_is_frozen_but_for_handle_and_lease(field: str) -> None:
    """What a delivery is does not change."""
    with pytest.raises(attrs.exceptions.FrozenAttributeError):
        setattr(delivery(), field, None)


@pytest.mark.parametrize(("field", "value"), [("native", "handle"), ("lease_until", 3.0)])
def test_delivery_takes_a_new_handle_and_lease(field: str, value: object) -> None:
    """A message received again replaces the handle and the lease in place."""
    held = delivery()
    setattr(held, field, value)

    assert getattr(held, field) == value


def test_deliveries_are_equal_only_to_themselves() -> None:
    """Two hand-overs of one message are two deliveries."""
    assert delivery() != delivery()


@pytest.mark.parametrize(("body", "size"), [(b"abc", 3), (b"", 0), (None, 0)])
def test_delivery_size_is_that_of_its_body(body: bytes | None, size: int) -> None:
    """A tombstone has no bytes."""
    assert delivery(body).size == size


def test_chunk_builds_nothing_before_it_is_asked() -> None:
    """Length, sizes and keys cost no objects."""
    built = Built(keys=["a", "b", None, "a"])
    assert (len(built.chunk), built.chunk.sizes, built.chunk.keys) == (4, [0, 1, 2, 3], ["a", "b", None, "a"])

    assert built.asked == []


def test_chunk_builds_each_delivery_once() -> None:
    """However a delivery is reached, it is the same one."""
    built = Built()
    reached = [*built.chunk, *built.chunk[1:3], built.chunk[-4], *reversed(built.chunk)]

    assert (built.asked, len(set(map(id, reached)))) == ([0, 1, 2, 3], 4)


def test_chunk_gives_one_delivery_to_all_threads() -> None:
    """Threads that ask at once get the same object."""
    built, barrier = Built(), threading.Barrier(8)
    seen: list[Delivery] = []

    def ask() -> None:
        barrier.wait()
        seen.append(built.chunk[2])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(map(id, seen))) == 1


@pytest.mark.parametrize(
    ("taken", "positions"),
    [
        (slice(None), ["0", "1", "2", "3"]),
        (slice(1, 3), ["1", "2"]),
        (slice(-1, None), ["3"]),
        (slice(3, 1), []),
        (slice(None, None, -2), ["3", "1"]),
        (slice(2, 99), ["2", "3"]),
    ],
    ids=str,
)
def test_chunk_slices_like_a_list(taken: slice, positions: list[str]) -> None:
    """A slice of a chunk is a list of its deliveries."""
    assert [held.position for held in Built().chunk[taken]] == positions


@pytest.mark.parametrize("index", [4, -5])
def test_chunk_refuses_an_index_outside(index: int) -> None:
    """There is no delivery beyond the end, counted from either side."""
    with pytest.raises(IndexError):
        Built().chunk[index]


def test_chunk_measures_bodies_with_tombstones() -> None:
    """A tombstone counts no bytes."""
    assert Chunk([b"ab", None], lambda _: delivery()).sizes == [2, 0]


@pytest.mark.parametrize(("positions", "asked"), [(["7", "8", "9", "10"], []), (None, [1])], ids=["column", "delivery"])
def test_chunk_gives_a_position_cheaply_where_it_can(positions: list[str] | None, asked: list[int]) -> None:
    """A column of positions saves the delivery."""
    built = Built(positions=positions)
    built.chunk.position(1)

    assert built.asked == asked


def test_lane_is_lost_once_and_for_all() -> None:
    """A claim that has ended does not come back, and says so where it is shown."""
    lane = Lane("images/3")
    before = repr(lane)
    lane.lose()

    assert (before, repr(lane), lane.lost) == ("Lane('images/3')", "Lane('images/3', lost)", True)


def test_lane_cannot_be_found_again() -> None:
    """Only `lose` changes it."""
    with pytest.raises(AttributeError):
        Lane("a").lost = False  # type: ignore[misc]


def test_lanes_of_one_name_are_different_claims() -> None:
    """A new claim is a new lane, even of the same name."""
    assert Lane("a") != Lane("a")


@pytest.mark.parametrize("values", ["abc", b"abc", {"a": 1}, 7, None], ids=repr)
def test_messages_refuse_what_is_one_result(values: object) -> None:
    """A text or a dict is one result, not several."""
    with pytest.raises(ConfigError, match="sequence of results"):
        Messages(values)  # type: ignore[arg-type]


def test_messages_are_a_sequence_of_results() -> None:
    """They have a length, an order and equality."""
    several = Messages(index for index in (1, None, 3))

    assert (len(several), list(several), several[2], several == Messages([1, None, 3])) == (3, [1, None, 3], 3, True)


@pytest.mark.parametrize("asked", ["all", "one", "none"])
def test_batch_joined_of_parts_has_their_size(asked: str) -> None:
    """The size of a joined batch is that of its bodies, whether its parts were asked for theirs or not."""
    parts = [Batch([b"ab", None]), Batch([b"c" * 10])]
    for part in parts[: {"all": 2, "one": 1, "none": 0}[asked]]:
        assert part.size

    assert Batch.join(parts).size == 12
