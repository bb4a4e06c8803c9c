"""One tree of errors: as drawn, pickled whole, and named like nothing else."""

from __future__ import annotations

import builtins
import inspect
import pickle
import re

import pytest

from eventflows import errors
from eventflows.errors import (
    BrokerError,
    CodecError,
    ConfigError,
    DecodeError,
    EncodeError,
    EventflowsError,
    HaltedError,
    ListenersError,
    Reject,
    Retry,
    ThrottledError,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EventflowsError)]
BROKER_ERRORS = [kind for kind in CLASSES if issubclass(kind, BrokerError)]
DRAWN = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?P<about>.*)$", re.MULTILINE)


def tree() -> str:
    """The drawing at the top of the module."""
    return (errors.__doc__ or "").split("```")[1].removeprefix("text")


def drawn() -> dict[str, str | None]:
    """The parent of each name in the drawing, which indents by three."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in DRAWN.finditer(tree()):
        path[len(line["branch"]) // 3 :] = [line["name"]]
        parents[line["name"]] = path[-2] if len(path) > 1 else None
    return parents


SAMPLES = [
    ConfigError("no such scheme"),
    CodecError("wrong", path="$.a[3]"),
    DecodeError("expected int", path="$.items[3].price"),
    EncodeError("NaN"),
    BrokerError("gone", retryable=True, retry_after=3.5),
    ThrottledError("slower", retry_after=0.0),
    HaltedError("stuck", position="3:1042"),
    ListenersError("refused", status=409, code=40_009, message="exists", request="POST /event-listeners"),
    Retry(300),
    Retry(),
    Reject("not a face"),
]


def test_tree_is_drawn_as_the_classes_are() -> None:
    """The drawing at the top of errors.py has every class under its own parent, and no other."""
    assert drawn() == {
        kind.__name__: None if kind is EventflowsError else kind.__bases__[0].__name__ for kind in CLASSES
    }


@pytest.mark.parametrize("kind", BROKER_ERRORS, ids=lambda kind: kind.__name__)
def test_broker_error_is_retryable_as_drawn(kind: type[BrokerError]) -> None:
    """What is worth trying again says so without being asked, and the drawing says which."""
    lines = {line["name"]: line["about"] for line in DRAWN.finditer(tree())}

    assert kind("text").retryable is ("(retryable)" in lines[kind.__name__])


@pytest.mark.parametrize("kind", BROKER_ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("retryable", [True, False])
def test_broker_error_is_as_retryable_as_the_adapter_says(kind: type[BrokerError], retryable: bool) -> None:
    """An adapter that knows better than the class is believed."""
    assert kind("text", retryable=retryable).retryable is retryable


def test_no_error_name_shadows_a_builtin() -> None:
    """`from eventflows.errors import *` takes no name of Python's own away."""
    assert [kind.__name__ for kind in CLASSES if hasattr(builtins, kind.__name__)] == []


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_name_ends_in_error(kind: type[EventflowsError]) -> None:
    """Every class is an error by its name, save the two instructions that `apply` raises."""
    assert kind.__name__.endswith("Error") or kind in (Retry, Reject)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_has_its_own_docstring(kind: type[EventflowsError]) -> None:
    """Each class says what happened and what to do next."""
    assert kind.__dict__["__doc__"]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: f"{type(error).__name__}-{error}")
def test_error_crosses_processes_whole(error: EventflowsError) -> None:
    """A pickled error comes back with its class, text and attributes."""
    back = pickle.loads(pickle.dumps(error))

    assert (type(back), str(back), back.args, vars(back)) == (type(error), str(error), error.args, vars(error))


@pytest.mark.parametrize("error", [EncodeError("NaN"), Retry(3), BrokerError("gone")], ids=lambda e: type(e).__name__)
def test_result_crosses_processes_with_its_error(error: EventflowsError) -> None:
    """What `apply` returned though it was not published is still there in another process."""
    error.result = {"label": 7}

    assert pickle.loads(pickle.dumps(error)).result == {"label": 7}


def test_config_error_is_a_value_error() -> None:
    """Code that knows nothing of this library catches a wrong option as a ValueError."""
    assert issubclass(ConfigError, ValueError)


def test_codec_error_begins_with_its_path() -> None:
    """The text of a codec error says first where in the document it is."""
    assert str(DecodeError("expected int", path="$.items[3].price")) == "$.items[3].price: expected int"


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "3"])
def test_retry_refuses_a_delay_that_is_no_time(delay: object) -> None:
    """A delay is a finite number of seconds, 0 or more."""
    with pytest.raises(ConfigError, match="delay"):
        Retry(delay)  # type: ignore[arg-type]


def test_retry_keeps_zero_apart_from_none() -> None:
    """Zero seconds is at once; None leaves it to the policy."""
    assert (Retry(0).delay, Retry().delay) == (0, None)
