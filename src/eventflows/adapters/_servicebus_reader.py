"""What the readers of Service Bus share, with sessions and without: what is checked, and what a verdict came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from eventflows.adapters._entered import Entered
from eventflows.adapters._servicebus_check import check_source
from eventflows.adapters._servicebus_held import Held, lease_lost
from eventflows.adapters._servicebus_link import Word
from eventflows.adapters._servicebus_place import place_of
from eventflows.adapters._servicebus_types import Native
from eventflows.errors import CapabilityError, ClosedError, LeaseLostError, OutcomeUnknownError
from eventflows.message import Chunk
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Capabilities, Finding, Location, SettleFailure


class Reader(Entered):
    """One source.

    Args:
        location: The source.
        options: `subscription`, `connection-string` or `credential`, `dead-letter`, `sessions`, `session_idle`.
        capabilities: Of the source.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.ready = False
        self._location = location
        self._place = place_of(location, options)
        self._options = options
        self._closed = False

    def __repr__(self) -> str:
        """Show the URL."""
        return f"{type(self).__name__}({self._place.text!r})"

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect."""
        raise NotImplementedError

    def close(self, *, timeout: float = 30.0) -> None:
        """Hand back what is held, and disconnect."""
        raise NotImplementedError

    def _was_closed(self) -> ClosedError:
        return ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")

    def _check_verdict(self, settlement: Settlement) -> None:
        if settlement.verdict is Verdict.DEAD_LETTER and not self.capabilities.dead_letter:
            raise self._no_dead_of_dead()
        if settlement.verdict is Verdict.RETRY and settlement.delay > 0:
            raise CapabilityError(f"{self._place.text} has no delayed retry: an abandoned message comes at once.")

    def _no_dead_of_dead(self) -> CapabilityError:
        return CapabilityError(f"{self._place.text} keeps no dead letters of dead letters.")

    def _words(
        self, settlements: Sequence[Settlement], held: Callable[[Chunk, int], Native | None]
    ) -> tuple[list[Word], list[SettleFailure]]:
        """Give a word for each message that is held, and a failure for each that is not."""
        words: list[Word] = []
        failures: list[SettleFailure] = []
        seen: set[int] = set()
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                for index in range(*stretch.indices(len(chunk))):
                    native = held(chunk, index)
                    if native is None or id(native) in seen:
                        failures.append(SettleFailure(chunk[index], self._lost(chunk.position(index))))
                    else:
                        seen.add(id(native))
                        words.append(Word(native, settlement, chunk, index))
        return words, failures

    def _failures(self, words: Sequence[Word], held: Callable[[Chunk], Held | None]) -> list[SettleFailure]:
        """Hold what was settled, or lost, no more; gives what was not settled."""
        failures = []
        for word in words:
            if not word.answered:
                word.error = OutcomeUnknownError(f"{self._place.text} did not confirm in time; settle it again.")
            holder = held(word.chunk)
            if holder is not None and (word.error is None or isinstance(word.error, LeaseLostError)):
                holder.drop(word.native)
            if word.error is not None:
                failures.append(SettleFailure(word.chunk[word.index], word.error))
        return failures

    def _lost(self, position: str) -> LeaseLostError:
        return lease_lost(self._place.text, position)

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Nothing waits: what was settled is settled."""
        return []

    def check(self) -> Sequence[Finding]:
        """Look at everything that a flow needs of this source; nothing is taken."""
        return check_source(self._place, self._options)

    def _dead_place(self) -> tuple[Location, Mapping[str, object]]:
        """Give where its dead letters are; they have no sessions."""
        if self._place.dead:
            raise self._no_dead_of_dead()
        mark = "&" if "?" in self._location.text else "?"
        location = attrs.evolve(self._location, text=f"{self._location.text}{mark}dead-letter")
        options = {name: value for name, value in self._options.items() if name not in ("sessions", "session_idle")}
        return location, {**options, "dead-letter": True}
