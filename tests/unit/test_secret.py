"""A secret is used, and never shown."""

from __future__ import annotations

import copy
import io
import logging
import pathlib
import pickle
import traceback
from collections.abc import Callable

import attrs
import pytest

from eventflows.errors import ConfigError
from eventflows.secret import Secret

HIDDEN = "hunter2"


@attrs.frozen
class Holder:
    """Something that holds a secret."""

    key: Secret


def logged(secret: Secret) -> str:
    """What a log says that gets the secret as an argument."""
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("connecting with %s and %r", secret, secret)
    return stream.getvalue()


WAYS: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda secret: f"{secret}|{secret!r}|{secret:>40}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - the old way, too
    "in a list": lambda secret: repr([secret, {"key": secret}]),
    "in an attrs class": lambda secret: repr(Holder(secret)),
    "log": logged,
    "dir": lambda secret: repr(dir(secret)),
}


@pytest.mark.parametrize("show", WAYS.values(), ids=WAYS.keys())
def test_secret_hides_its_value(show: Callable[[Secret], str]) -> None:
    """However it is shown, a secret shows no value."""
    assert HIDDEN not in show(Secret(HIDDEN))


def test_secret_reveals_its_value_when_asked() -> None:
    """The one way to the value is to ask for it."""
    assert Secret(HIDDEN).reveal() == HIDDEN


def test_reference_shows_where_it_comes_from() -> None:
    """A secret of the environment or a file names its place, which is no secret."""
    assert [str(Secret.env("TOKEN")), str(Secret.file("/run/token"))] == [
        "Secret.env('TOKEN')",
        "Secret.file('/run/token')",
    ]


def test_literal_is_not_pickled() -> None:
    """A literal secret does not get into a file or another process; the error says the way out."""
    with pytest.raises(ConfigError, match=r"Secret\.env") as caught:
        pickle.dumps(Secret(HIDDEN))

    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_environment_reference_is_read_where_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference is pickled as such, and read when it is revealed."""
    pickled = pickle.dumps(Secret.env("EVENTFLOWS_TEST_TOKEN"))
    monkeypatch.setenv("EVENTFLOWS_TEST_TOKEN", HIDDEN)

    assert (HIDDEN.encode() in pickled, pickle.loads(pickled).reveal()) == (False, HIDDEN)


@pytest.mark.parametrize(
    ("text", "value"), [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), (" a ", " a ")]
)
def test_file_reference_drops_one_line_end(tmp_path: pathlib.Path, text: str, value: str) -> None:
    """A file's last line end is the editor's, not the secret's."""
    path = tmp_path / "token"
    path.write_bytes(text.encode())

    assert pickle.loads(pickle.dumps(Secret.file(path))).reveal() == value


def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set is an error with its name."""
    monkeypatch.delenv("EVENTFLOWS_TEST_TOKEN", raising=False)

    with pytest.raises(ConfigError, match="EVENTFLOWS_TEST_TOKEN"):
        Secret.env("EVENTFLOWS_TEST_TOKEN").reveal()


@pytest.mark.parametrize("content", [None, b"\xffhunter2"], ids=["missing", "not text"])
def test_unreadable_file_is_named(tmp_path: pathlib.Path, content: bytes | None) -> None:
    """A file that cannot be read is an error with its path, and without its content."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match="token") as caught:
        Secret.file(path).reveal()

    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda secret: attrs.evolve(Holder(secret)).key])
def test_copy_stays_in_this_process_and_is_allowed(copied: Callable[[Secret], Secret]) -> None:
    """Copying options does not fail for the secret in them."""
    assert copied(Secret(HIDDEN)).reveal() == HIDDEN


def test_secrets_compare_by_kind_and_value() -> None:
    """A literal is not the variable of the same name."""
    assert {Secret("A"), Secret("A"), Secret.env("A"), Secret.file("A")} == {
        Secret("A"),
        Secret.env("A"),
        Secret.file("A"),
    }


@pytest.mark.parametrize("value", [None, b"hunter2", 7])
def test_secret_is_text(value: object) -> None:
    """Anything but text is refused without being shown."""
    with pytest.raises(ConfigError) as caught:
        Secret(value)  # type: ignore[arg-type]

    assert HIDDEN not in str(caught.value)
