"""What every call of the platform's API shares: keys, waits that a server asks for, texts without secrets."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from eventflows.errors import ConfigError
from eventflows.secret import Secret

LONGEST_TEXT = 300
"""Characters of a server's own words that an error repeats."""


def checked(api: str, who: str) -> str:
    """Give an address without a slash at its end.

    Raises:
        ConfigError: It is none, or has a user name or password in it.
    """
    if not isinstance(api, str) or not api.startswith(("https://", "http://")) or len(api) <= len("https://"):
        shown = api if isinstance(api, str) and "@" not in api else "..."
        raise ConfigError(f"{who}({shown!r}): the address begins with https:// (or http://).")
    if "@" in api or "?" in api or "#" in api:
        raise ConfigError(f"{who}(...): the address is scheme and host, without user name, password or options.")
    return api.rstrip("/")


def secret(key: str | Secret | None) -> Secret | None:
    """Hide a key that is given as text; None and an empty one are none."""
    return Secret(key) if isinstance(key, str) and key else key if isinstance(key, Secret) else None


def part(value: str | int) -> str:
    """Escape one part of a path; dots alone would lead elsewhere."""
    text = str(value)
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Give the seconds that an answer asks to wait, said as a number or as a date; None when it does not, or oddly."""
    said = headers.get("Retry-After", "").strip()
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def scrubbed(text: object, secrets: Iterable[Secret | str | None]) -> str | None:
    """Give a server's words in one line, shortened, without the secrets that it may repeat; None when it said none."""
    if not isinstance(text, str) or not text.strip():
        return None
    for one in secrets:
        value = one.reveal() if isinstance(one, Secret) else one
        if value:
            text = text.replace(value, "***")
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."
