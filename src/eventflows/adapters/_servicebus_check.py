"""`eventflows check` for Service Bus: reached, let in, there, sessions or not, its limits, dead letters that wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows.adapters._azure import READ, mend
from eventflows.adapters._owner import Owner
from eventflows.adapters._servicebus_errors import wants_sessions
from eventflows.adapters._servicebus_limits import Made, administration_of, limits
from eventflows.adapters._servicebus_link import Link
from eventflows.adapters._servicebus_place import Place
from eventflows.errors import BrokerError
from eventflows.protocols import Finding

TIMEOUT: Final = 15.0
COUNTED: Final = 100  # dead letters that are counted: it looks at each
MISSING: Final = "Create it, or correct the URL; a topic is read through ?subscription=."


def aside(place: Place, options: Mapping[str, object], work: Callable[[Link], Any], timeout: float, doing: str) -> Any:  # noqa: ANN401
    """Do something on a link of its own, which is opened for it and closed behind it.

    Raises:
        BrokerError: By its class: what to mend, or that it is worth trying again.
    """
    owner, link = Owner("eventflows-servicebus-look", place.text), Link(place, options)

    def run() -> Any:  # noqa: ANN401
        link.open(timeout)
        return work(link)

    try:
        return owner.call(run, timeout, doing)
    finally:
        owner.start(link.close)
        owner.end()


def check_source(
    place: Place, options: Mapping[str, object], administration: Made = administration_of
) -> Sequence[Finding]:
    """Look at a source.

    Args:
        place: Where it is.
        options: Its own.
        administration: Makes the client that is asked for locks and deliveries.
    """
    asked = "sessions" in options
    try:
        aside(place, options, lambda link: link.peek(1, 1, TIMEOUT), TIMEOUT, "check")
        has = False
    except BrokerError as error:
        if not wants_sessions(error):
            return [Finding("error", str(error), mend(error, missing=MISSING, denied=READ))]
        has = True
    if has != asked:
        fix = "Give sessions=8, or however many it should work on at once." if has else "Leave sessions= out."
        return [Finding("error", f"{place.text} {'has' if has else 'has no'} sessions", fix)]
    text = "its sessions can be read" if has else "it can be read, and has no sessions"
    there = Finding("ok", f"{place.text} is there, and {text}")
    return [there, *limits(place, options, administration), *_dead(place, options)]


def _dead(place: Place, options: Mapping[str, object]) -> Sequence[Finding]:
    if place.dead:
        return []
    try:
        there = attrs.evolve(place, dead=True)
        waiting = len(aside(there, options, lambda link: link.peek(COUNTED, 1, TIMEOUT), TIMEOUT, "check"))
    except BrokerError as error:
        return [Finding("error", f"its dead letters: {error}", mend(error, missing=MISSING, denied=READ))]
    if not waiting:
        return [Finding("ok", "no dead letters wait")]
    count = f"{waiting} or more" if waiting >= COUNTED else str(waiting)
    return [Finding("warning", f"dead letters wait: {count}", "Look at them: eventflows tail with ?dead-letter.")]
