"""The decorators: the function stays a function, and a flow does what its call promises."""

from __future__ import annotations

import asyncio
import inspect
import pathlib
import pickle
import threading
import uuid

import pytest

import eventflows
from eventflows import ConfigError, Delivery, HaltedError, LoadError, Messages, TooLargeError, publisher, subscriber
from eventflows.protocols import Browsable


def place() -> str:
    """Give a broker that nobody else uses."""
    return f"local://{uuid.uuid4().hex}"


def waiting(url: str) -> list[bytes | None]:
    """Look at what waits."""
    source = eventflows.open_subscriber(url)
    assert isinstance(source, Browsable)
    return [delivery.message.body for delivery in source.peek(100, timeout=5)]


def apply(input: int) -> int:
    """Double it."""
    return 2 * input


@publisher("local://pickled-flow")
def importable(input: int) -> int:
    """Double it, and publish."""
    return 2 * input


def test_decorating_touches_no_file(tmp_path: pathlib.Path) -> None:
    """Nothing is connected before a run."""
    subscriber(f"local://a?file={tmp_path}/flows.db")(apply)
    assert list(tmp_path.iterdir()) == []


def test_order_of_the_decorators_does_not_matter() -> None:
    """Either order gives the same source, destination and function."""
    one = subscriber("local://a")(publisher("local://b")(apply))
    other = publisher("local://b")(subscriber("local://a")(apply))
    assert (one.source, one.destination, one.__wrapped__) == (other.source, other.destination, other.__wrapped__)


@pytest.mark.parametrize("decorator", [subscriber("local://a"), publisher("local://a")], ids=["source", "destination"])
def test_second_of_a_kind_is_refused(decorator: eventflows.flow.Decorator) -> None:
    """A flow has one source and one destination."""
    with pytest.raises(ConfigError, match="already"):
        decorator(decorator(apply))


def test_signature_is_the_functions_own() -> None:
    """Tools that look at a flow see the function, the platform kit's rule of two positional parameters included."""
    flow = subscriber("local://a")(apply)
    assert inspect.getfullargspec(flow).args == inspect.getfullargspec(apply).args


def test_flow_pickles_by_reference() -> None:
    """A flow crosses processes by its name."""
    assert pickle.loads(pickle.dumps(importable)) is importable


def test_call_is_the_plain_call_when_there_is_a_source() -> None:
    """And publishes nothing."""
    out = place()
    flow = subscriber(place())(publisher(out)(apply))
    assert (flow(2), waiting(out)) == (4, [])


def test_call_publishes_when_there_is_only_a_destination() -> None:
    """It returns the value once the broker has it."""
    out = place()
    assert (publisher(out)(apply)(2), waiting(out)) == (4, [b"4"])


def test_failing_publish_keeps_the_result() -> None:
    """The error has what `apply` returned."""
    with pytest.raises(TooLargeError) as found:
        publisher(place())(lambda size: b"x" * size)(2**25)
    assert found.value.result == b"x" * 2**25


def test_awaited_call_publishes_before_it_resolves() -> None:
    """A coroutine function, too."""
    out = place()

    async def later(input: int) -> int:
        return input

    assert (asyncio.run(publisher(out)(later)(3)), waiting(out)) == (3, [b"3"])  # type: ignore[arg-type]


def test_bound_method_becomes_a_flow() -> None:
    """A method is decorated on its object."""

    class Scorer:
        def apply(self, input: int) -> int:
            return input + 1

    out = place()
    publisher(out)(Scorer().apply)(1)
    assert waiting(out) == [b"2"]


def test_class_body_is_refused() -> None:
    """There is no object yet."""
    with pytest.raises(ConfigError, match="inside a class body"):

        class Scorer:
            @subscriber("local://a")
            def apply(self, input: int) -> int:
                return input


def test_generator_is_refused() -> None:
    """Several results are Messages."""

    def many(input: int) -> object:
        yield input

    with pytest.raises(ConfigError, match="generator"):
        subscriber("local://a")(many)


@pytest.mark.parametrize(
    "function",
    [lambda: 1, lambda a, b: 1, lambda a, b, c: 1, lambda *a: 1, lambda a, *, other: 1, int],
    ids=["nothing", "state without load", "three", "any number", "unknown keyword", "a class"],
)
def test_wrong_signature_is_refused(function: object) -> None:
    """What nobody can call is said at decoration."""
    with pytest.raises(ConfigError):
        subscriber("local://a")(function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0}, {"retry": 3}, {"order": "sideways"}, {"drain_timeout": -1}, {"max_in_flight": 0}, {"load": 3},
        {"dead_letter": "somewhere"}, {"batch": 0}, {"executor": "ray"}, {"guarantee": "sometimes"},
        {"batch_wait": 1.0}, {"timeout": 0},
        {"wrokers": 2}, {"max_in_flight": 3, "batch": 4},
    ],
    ids=lambda settings: next(iter(settings)),
)  # fmt: skip
def test_wrong_option_is_refused_by_its_name(settings: dict[str, object]) -> None:
    """The text names it."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        subscriber("local://a", **settings)  # type: ignore[arg-type]


def test_load_runs_once_for_all_workers_and_runs() -> None:
    """The state is made once per process."""
    loads: list[int] = []
    url = place()
    flow = subscriber(url, load=lambda: loads.append(1) or 5, workers=4)(lambda input, state: None)
    for _ in range(2):
        eventflows.send(url, *range(20))
        flow.run(until_idle=0.05)
    assert loads == [1]


def test_failing_load_takes_nothing() -> None:
    """The messages wait."""
    url = place()
    eventflows.send(url, 1)

    def load() -> object:
        raise ValueError

    with pytest.raises(LoadError):
        subscriber(url, load=load)(lambda input, state: None).run(limit=1)
    assert waiting(url) == [b"1"]


def test_delivery_comes_under_its_keyword() -> None:
    """A keyword-only parameter gets the delivery."""
    url, seen = place(), list[str | None]()

    def keyed(input: int, *, delivery: Delivery) -> None:
        seen.append(delivery.key)

    eventflows.send(url, 1, key="k")
    subscriber(url)(keyed).run(limit=1)
    assert seen == ["k"]


def test_several_results_are_published_in_order() -> None:
    """Messages of one key keep theirs."""
    url, out = place(), place()
    eventflows.send(url, 1, key="k")
    publisher(out)(subscriber(url)(lambda input: Messages([1, None, "b"]))).run(limit=1)
    assert waiting(out) == [b"1", b"b"]


def test_preview_takes_nothing() -> None:
    """What was there is there still."""
    url = place()
    eventflows.send(url, 1)
    assert ([row.output for row in subscriber(url)(apply).preview(5)], waiting(url)) == ([2], [b"1"])


def test_undecodable_input_never_reaches_apply() -> None:
    """It is a dead letter at once."""
    url, calls = place(), list[int]()

    def note(input: int) -> None:
        calls.append(input)

    eventflows.send(url, b"no number")
    result = subscriber(url)(note).run(limit=1)
    assert (calls, result.dead_lettered) == ([], 1)


def test_halt_leaves_the_message() -> None:
    """The next start meets the same one."""
    url = place()
    eventflows.send(url, b"no number")
    with pytest.raises(HaltedError):
        subscriber(url, dead_letter="halt")(apply).run()
    assert waiting(url) == [b"no number"]


def test_flow_runs_inside_a_running_event_loop() -> None:
    """As in a notebook."""
    url = place()
    eventflows.send(url, 1)

    async def cell() -> int:
        return subscriber(url)(apply).run(limit=1).acked

    assert asyncio.run(cell()) == 1


def test_running_drains_at_the_end_of_the_block() -> None:
    """What was taken is finished and settled."""
    url, last = place(), threading.Event()

    def note(input: int) -> None:
        if input == 9:
            last.set()

    with subscriber(url)(note).running():
        eventflows.send(url, *range(10), key="k")
        assert last.wait(10)
    assert waiting(url) == []


def test_flow_without_a_source_cannot_run() -> None:
    """It is called instead."""
    with pytest.raises(ConfigError, match="has no source"):
        publisher("local://a")(apply).run()


def test_description_hides_nothing_but_secrets() -> None:
    """Source and destination are shown, as text and as HTML."""
    description = subscriber("local://a")(publisher("local://b")(apply)).describe()
    assert ("local://a" in str(description), "local://b" in description._repr_html_()) == (True, True)
