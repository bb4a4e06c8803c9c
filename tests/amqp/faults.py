"""Ways to make the stand-in misbehave. Every method runs on the server's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs

from amqp.codec import Described
from amqp.frames import Performative, error, rejected
from amqp.stored import Stored

Refusal = tuple[str, str]
"""A condition, and a text."""


@attrs.define
class _Planned:
    operation: str
    condition: str
    left: int
    match: Callable[[Stored], bool] | None
    entity: str | None


class Faults:
    """What goes wrong next.

    The operations: `open` (tokens and links), `publish`, `receive`, `settle`, `extend` and `peek`.
    """

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._frozen: set[tuple[str, str | None]] = set()
        self._mute: set[str | None] = set()
        self.trace: Callable[[str, int, Performative], Any] | None = None
        """Hears every frame that comes: container, channel, performative."""
        self._held: list[tuple[str, Callable[[], None]]] = []
        self.endings = 0
        """How many sessions end as their `$cbs` is attached to."""
        self.terse = False
        """Whether what is published is refused by an error of two fields: clients cannot read it, and hang."""
        self.delay = 0.0
        """Seconds by which every answer comes late: of management, to a publication, to a settlement."""

    def plan(
        self,
        operation: str,
        condition: str,
        *,
        times: int = 1,
        match: Callable[[Stored], bool] | None = None,
        entity: str | None = None,
    ) -> None:
        """Refuse the next calls of an operation; with `match`, only those of messages that match.

        Args:
            operation: Of those above.
            condition: What the client is told.
            times: How many.
            match: Which messages; None: all.
            entity: By its path; None: of all.
        """
        self._planned.append(_Planned(operation, condition, times, match, entity))

    def meets(self, operation: str, entity: str, message: Stored | None = None) -> Refusal | None:
        """Say why a call is refused; None: it is not."""
        for planned in self._planned:
            hit = planned.match is None or (message is not None and planned.match(message))
            if planned.operation == operation and hit and planned.entity in (None, entity):
                planned.left -= 1
                if planned.left <= 0:
                    self._planned.remove(planned)
                return planned.condition, "refused, as it was told to"
        return None

    def freeze(self, operation: str, entity: str | None = None) -> None:
        """Answer no call of an operation."""
        self._frozen.add((operation, entity))

    def thaw(self, operation: str) -> None:
        """Answer again. What was published meanwhile is taken now; other calls stay without an answer."""
        self._frozen = {one for one in self._frozen if one[0] != operation}
        held, self._held = self._held, []
        for entity, take in held:
            self.unless_frozen(entity, take)

    def unless_frozen(self, entity: str | None, take: Callable[[], None]) -> None:
        """Take what was published to an entity, now or when it is thawed."""
        if entity is not None and self.frozen("publish", entity):
            self._held.append((entity, take))
        else:
            take()

    def mute(self, entity: str | None = None) -> None:
        """Take what is published, and never say so: of one entity, or of all."""
        self._mute.add(entity)

    def muted(self, entity: str | None) -> bool:
        """Whether what is published there is taken without a word."""
        return entity is not None and bool(self._mute & {None, entity})

    def clear(self) -> None:
        """Let nothing go wrong."""
        self._planned, self._frozen, self._held, self.delay, self.trace = [], set(), [], 0.0, None
        self._mute, self.endings, self.terse = set(), 0, False

    def refusal(self, condition: str, text: str) -> Described:
        """Say that what was published is refused."""
        why = error(condition, text)
        return rejected(Described(why.descriptor, why.value[:2]) if self.terse else why)

    def frozen(self, operation: str, entity: str) -> bool:
        """Whether calls of an operation are not answered."""
        return (operation, None) in self._frozen or (operation, entity) in self._frozen

    def later(self, answer: Callable[[], None]) -> None:
        """Answer, perhaps late."""
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, answer)
        else:
            answer()
