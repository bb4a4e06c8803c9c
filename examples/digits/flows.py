"""Two flows over handwritten digits: one classifies images, one tallies the scores.

`EVENTFLOWS_DIGITS` names the broker's file; without it, it is `digits.db` in the current folder. Another broker is
named by its URLs, in `EVENTFLOWS_DIGITS_IMAGES` and `EVENTFLOWS_DIGITS_SCORES`, and one without dead letters of its own
by `EVENTFLOWS_DIGITS_DEAD`, too; `EVENTFLOWS_DIGITS_READING` is what a URL must have behind it to be read.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from eventflows import Observer, Reject, publisher, subscriber

FILE = os.environ.get("EVENTFLOWS_DIGITS", "digits.db")
IMAGES = os.environ.get("EVENTFLOWS_DIGITS_IMAGES", f"local://images?file={FILE}")
SCORES = os.environ.get("EVENTFLOWS_DIGITS_SCORES", f"local://scores?file={FILE}")
DEAD = os.environ.get("EVENTFLOWS_DIGITS_DEAD")
READING = os.environ.get("EVENTFLOWS_DIGITS_READING", "")
SIZE = 64
BRIGHTEST = 16
BLANK = "a blank image shows no digit"
WRONG_SIZE = f"not an image of {SIZE} pixels"

TALLY: collections.Counter[int] = collections.Counter()
"""Scores of each class."""
RIGHT: collections.Counter[int] = collections.Counter()
"""Those of them that are right."""


class Progress(Observer):
    """Passes on how much of a flow is done."""

    def __init__(self) -> None:
        self.advance: Callable[[int], object] = lambda count: None

    def settled(self, *, flow: str, verdict: object, count: int) -> None:
        """Pass it on."""
        self.advance(count)


CLASSIFIED, TALLIED = Progress(), Progress()


@attrs.frozen
class Image:
    """One scanned digit."""

    number: int
    """Which of the 1,797 images it is."""
    pixels: list[float]
    """8 rows of 8 pixels, each from 0 (white) to 16 (black)."""


def split() -> tuple[Any, Any]:
    """Give the numbers of the images for training, and of those held out."""
    return train_test_split(np.arange(len(load_digits().target)), test_size=0.5, random_state=0)


def load() -> LogisticRegression:
    """Train a small model on the images that are not held out; once per process."""
    digits = load_digits()
    train, _ = split()
    return LogisticRegression(max_iter=200).fit(digits.data[train] / BRIGHTEST, digits.target[train])


@subscriber(IMAGES + READING, name="classify", load=load, dead_letter=DEAD, observers=[CLASSIFIED])
@publisher(SCORES, key=lambda score: str(score["label"]))
def classify(image: Image, model: LogisticRegression) -> dict[str, Any]:
    """Say which digit an image shows."""
    if len(image.pixels) != SIZE:
        raise Reject(WRONG_SIZE)
    pixels = np.array(image.pixels)
    if not pixels.any():
        raise Reject(BLANK)
    shares = model.predict_proba([pixels / BRIGHTEST])[0]
    label = shares.argmax()
    return {"number": image.number, "label": model.classes_[label], "share": shares[label]}


@functools.cache
def labels() -> Any:  # noqa: ANN401 - an array of numpy
    """Give the true digits, read once."""
    return load_digits().target


@subscriber(SCORES + READING, name="tally", observers=[TALLIED])
def tally(score: dict[str, Any]) -> None:
    """Count the scores of each class, and how many are right."""
    label = score["label"]
    TALLY[label] += 1
    RIGHT[label] += bool(labels()[score["number"]] == label)
