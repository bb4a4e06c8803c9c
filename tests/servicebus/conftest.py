"""What the tests of Service Bus count on."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def sockets_of_the_client() -> Iterator[None]:
    """Collect the sockets that the vendor's client leaves open when a connection is refused or cut under it."""
    yield
    # Closing does not wait for the client's own end, which a server that goes meanwhile would cut.
    for thread in threading.enumerate():
        if thread.name.startswith("eventflows-servicebus"):
            thread.join(3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
