"""Every error that the vendor's client has is one that the adapter knows."""

from __future__ import annotations

import inspect

import pytest
from azure.eventhub import exceptions

from eventflows.adapters._eventhubs_errors import CLASSES, translate
from eventflows.errors import NotFoundError
from eventhubs_errors import TABLE

OWN = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == exceptions.__name__
]


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_has_a_row_of_its_own(kind: type[BaseException]) -> None:
    """A new release with a new error fails here, and is not translated by guess."""
    assert kind.__name__ in CLASSES


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_is_in_the_table_of_the_suite(kind: type[BaseException]) -> None:
    """What each becomes is written down twice, and compared by C17."""
    assert kind in {type(error) for error, _, _ in TABLE}


def test_what_the_service_says_decides() -> None:
    """The client has one class for many refusals; the condition tells them apart."""
    error = exceptions.ConnectError("refused Error condition: amqp:not-found.")
    assert type(translate(error, "here", "open")) is NotFoundError
