"""Every error that the vendor's client has is one that the adapter knows."""

from __future__ import annotations

import inspect

import pytest
from azure.servicebus import exceptions

from eventflows.adapters._servicebus_errors import CLASSES, OPEN, PUBLISH, translate
from eventflows.errors import BrokerError, ConnectionFailedError, InvalidMessageError
from servicebus_errors import TABLE

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


def test_a_message_that_is_refused_is_at_fault_itself() -> None:
    """What the service says of a message while publishing is that message's own fault."""
    error = exceptions.ServiceBusError("refused", condition="amqp:not-allowed")
    assert type(translate(error, "here", PUBLISH)) is InvalidMessageError


def test_a_receiver_that_is_refused_is_no_fault_of_a_message() -> None:
    """The same words on opening, as of an entity with sessions, say what to do about it."""
    error = translate(exceptions.ServiceBusError("refused", condition="amqp:not-allowed"), "here", OPEN)
    assert (type(error), error.retryable, "sessions" in str(error)) == (BrokerError, False, True)


def test_a_time_out_on_opening_is_a_failed_connection() -> None:
    """Nothing was attempted but to connect, so nothing is unknown."""
    assert type(translate(exceptions.OperationTimeoutError(), "here", OPEN)) is ConnectionFailedError


def test_a_long_text_is_cut() -> None:
    """The service's words do not fill a log."""
    assert len(str(translate(exceptions.ServiceBusError("x" * 10_000), "here", OPEN))) < 600
