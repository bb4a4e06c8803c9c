"""Requests to the platform's API: time limits, attempts, and what an answer that is no good means.

httpx has retries for connecting alone; tenacity and httpx-retries know neither which of our calls may be repeated nor
the waits that the API asks for, and are no shorter than the loop below.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from eventflows import _http
from eventflows.errors import ConfigError, ListenersError
from eventflows.secret import Secret

ATTEMPTS: Final = 4
BUSY: Final = frozenset({429, 502, 503, 504})
IDEMPOTENT: Final = frozenset({"GET", "PUT", "DELETE"})
MAX_WAIT: Final = 30.0
"""Seconds; a server may ask for more, a caller at a prompt will not wait for it."""
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of an answer, at most."""


class Wire:
    """A connection pool to one address; safe to share between threads.

    Args:
        api: The address.
        timeout: Seconds that one request may take, its answer included.
    """

    def __init__(self, api: str, timeout: float) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise ConfigError(f"timeout={timeout!r}: expected seconds, more than 0.")
        self._api = api
        self._timeout = float(timeout)
        # A redirect is refused, not followed: the key must not travel to another host.
        self._http = httpx.Client(timeout=timeout, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self, method: str, path: str, key: Secret, *, params: Mapping[str, str] | None, body: Mapping[str, Any] | None,
        empty: bool, hidden: Sequence[Secret | str | None],
    ) -> Any:  # noqa: ANN401 - JSON  # fmt: skip
        """Send a request, again where that is safe and may help, and read its answer.

        Args:
            method: HTTP's.
            path: Escaped.
            key: Sent as the authorization.
            params: Of the query.
            body: Sent as JSON.
            empty: Whether the answer may have no body.
            hidden: Taken out of whatever the API says.

        Raises:
            ListenersError: It was refused, or there was no answer that can be read.
        """
        headers = {"Authorization": f"Simple {key.reveal()}"}
        for attempt in range(1, ATTEMPTS + 1):
            last = method not in IDEMPOTENT or attempt == ATTEMPTS
            try:
                status, answer, raw = self._send(method, path, headers, params, body)
            except httpx.TransportError as error:
                if last:
                    raise self._failed(method, path, error) from error
                time.sleep(0.1 * 2**attempt)
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self._failed(method, path, error) from error
            if status not in BUSY or last:
                return _read(method, path, status, answer, raw, empty=empty, hidden=hidden)
            asked = _http.retry_after(answer)
            time.sleep(0.1 * 2**attempt if asked is None else min(asked, MAX_WAIT))
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> tuple[int, httpx.Headers, bytes]:  # fmt: skip
        """Send once; the whole answer comes within the time, also when it drips."""
        deadline = time.monotonic() + self._timeout
        raw = bytearray()
        with self._http.stream(method, self._api + path, params=params, json=body, headers=headers) as answer:
            for part in answer.iter_bytes():
                raw += part
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer is not complete in time")
                if len(raw) > LARGEST:
                    raise httpx.DecodingError("the answer is too large")
            return answer.status_code, answer.headers, bytes(raw)

    def _failed(self, method: str, path: str, error: Exception) -> ListenersError:
        after = ""
        if method not in IDEMPOTENT:
            after = "; it may have been done, so look before trying anew"
        return _error(method, path, f"no answer ({type(error).__name__}); check the address{after}")


def _read(
    method: str, path: str, status: int, headers: httpx.Headers, raw: bytes, *, empty: bool,
    hidden: Sequence[Secret | str | None],
) -> Any:  # noqa: ANN401 - JSON  # fmt: skip
    fine = 200 <= status < 300
    if fine and empty:
        return None
    if 300 <= status < 400:
        raise _error(
            method, path, f"HTTP {status}: the API redirects elsewhere, which is not followed; correct the address",
            status=status,
        )  # fmt: skip
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        kind = headers.get("Content-Type", "no content type")[:80]
        raise _error(method, path, f"HTTP {status}, and the answer is not JSON ({kind})", status=status) from error
    if fine and isinstance(value, (dict, list)):
        return value
    if fine:
        raise _error(method, path, f"HTTP {status}, and the answer is neither object nor list", status=status)
    said = value if isinstance(value, dict) else {}
    code, message = said.get("code"), _http.scrubbed(said.get("message"), hidden)
    raise _error(
        method, path, f"HTTP {status}: {message or 'no reason given'}", status=status, message=message,
        code=code if isinstance(code, int) else None,
    )  # fmt: skip


def _error(method: str, path: str, text: str, **more: Any) -> ListenersError:  # noqa: ANN401 - passed through
    return ListenersError(
        f"{method} {path}: {text}{'' if text.endswith('.') else '.'}", request=f"{method} {path}", **more
    )
