"""Algorithms that the platform hosts, as an `apply` here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from eventflows import _http
from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ConfigError,
    ConnectionFailedError,
    EventflowsError,
    InvalidMessageError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Retry,
)
from eventflows.message import Delivery, Message
from eventflows.secret import Secret

DEFAULT_TIMEOUT: Final = 420.0
LONGEST_TIMEOUT: Final = 3000.0
BUSY_DELAY: Final = 300.0
"""Seconds until the next attempt when the platform is busy and does not say how long."""
GRACE: Final = 30.0
"""Seconds that an answer may take beyond the algorithm's own time."""
_BUSY: Final = (429, 503)
_PATH: Final = re.compile(r"(?P<owner>[^/\s:]+)/(?P<name>[^/\s:]+)(?:/(?P<version>[^/\s:]+))?")
_TYPES: Final = {"json": "application/json", "text": "text/plain", "binary": "application/octet-stream"}

Hosted = Callable[..., Awaitable[Any]]


class AlgorithmError(EventflowsError):
    """A hosted algorithm raised; the call meets the retry policy like any failure of `apply`.

    Args:
        text: The algorithm and its own words, shortened.
        error_type: What the algorithm calls the error; written into the dead letter.
    """

    def __init__(self, text: str, *, error_type: str = "AlgorithmError") -> None:
        super().__init__(text)
        self.error_type = error_type


def hosted_algorithm(
    api: str, algorithm: str, *, api_key: str | Secret | None = None, timeout: float = DEFAULT_TIMEOUT
) -> Hosted:
    """Make an `apply` that calls an algorithm which the platform hosts.

    It is a coroutine function: `workers=N` of `@subscriber` keeps N calls in flight. The input's content type is kept:
    JSON is sent as it came, text as text, bytes as bytes; so is that of the result. When the platform is busy (429,
    503) the message is tried again after the time it asks for, else after 300 seconds. Connects at the first call.

    Args:
        api: Base address, such as `https://api.CLUSTER_DOMAIN`.
        algorithm: "owner/name", which runs the latest version, or "owner/name/1.2.0".
        api_key: The key; None: `ALGORITHMIA_API_KEY`, read at the first call.
        timeout: Seconds that the algorithm may take, more than 0 and 3000 at most.

    Returns:
        The coroutine function; called without a runner it gives the result.

    Raises:
        ConfigError: An argument is wrong; the text says which.
    """
    base = _http.checked(api, "hosted_algorithm")
    found = split(algorithm)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= LONGEST_TIMEOUT:
        raise ConfigError(
            f"hosted_algorithm(timeout={timeout!r}): seconds, more than 0 and {LONGEST_TIMEOUT:g} at most."
        )
    calls = _Calls(base, found, _http.secret(api_key), float(timeout))

    async def apply(input: Any, *, delivery: Delivery | None = None) -> Any:  # noqa: ANN401 - any value
        return await calls.call(input, delivery)

    apply.__name__ = found["name"]
    apply.__qualname__ = algorithm  # the name of a flow made of it, and so part of its outputs' ids
    apply.__doc__ = f"Call {algorithm} at {base}."
    return apply


def split(algorithm: object) -> Mapping[str, str]:
    """Take "owner/name/version" apart; the version is empty where there is none.

    Raises:
        ConfigError: It is no such text.
    """
    found = _PATH.fullmatch(algorithm) if isinstance(algorithm, str) else None
    if found is None:
        raise ConfigError(f"{algorithm!r} is not an algorithm; write it as owner/name or owner/name/1.2.0.")
    return {key: value or "" for key, value in found.groupdict().items()}


def latest(api: str, algorithm: str, *, api_key: str | Secret | None = None, timeout: float = GRACE) -> str | None:
    """Ask the platform for the version that an algorithm without one stands for.

    Args:
        api: Base address.
        algorithm: "owner/name".
        api_key: The key; None: `ALGORITHMIA_API_KEY`.
        timeout: Seconds, at most.

    Returns:
        The version; None when this platform does not say: then it decides with each call.

    Raises:
        AuthenticationError: The key is wrong. Correct `ALGORITHMIA_API_KEY`.
        ConnectionFailedError: The platform does not answer. Check the address.
        ConfigError: An argument is wrong, or there is no key.
    """
    import httpx

    base, found, key = _http.checked(api, "latest"), split(algorithm), _key(_http.secret(api_key))
    url = f"{base}/v1/algorithms/{_http.part(found['owner'])}/{_http.part(found['name'])}"
    try:
        with httpx.Client(timeout=timeout, follow_redirects=False) as client:
            answer = client.get(url, headers={"Authorization": f"Simple {key.reveal()}"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionFailedError(f"{base} does not answer ({type(error).__name__}). Check the address.") from error
    if answer.status_code in (401, 403):
        raise _refused(answer.status_code, algorithm, None)
    try:
        about = answer.json()["version_info"] if answer.is_success else {}
        version = about.get("semantic_version") or about.get("git_hash")
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
    return version if isinstance(version, str) and version else None


def _key(given: Secret | None) -> Secret:
    key = given or _http.secret(os.environ.get("ALGORITHMIA_API_KEY"))
    if key is None:
        raise ConfigError("A hosted algorithm needs a key: set ALGORITHMIA_API_KEY, or give api_key=.")
    return key


class _Calls:
    """Calls one algorithm; a connection pool for each event loop."""

    def __init__(self, base: str, found: Mapping[str, str], key: Secret | None, timeout: float) -> None:
        self._path = "/".join(part for part in found.values() if part)
        self._url = f"{base}/v1/algo/" + "/".join(_http.part(part) for part in found.values() if part)
        self._given = key
        self._timeout = timeout
        self._clients: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    async def call(self, value: Any, delivery: Delivery | None) -> Any:  # noqa: ANN401 - any value
        """Send a value, and give what the algorithm made of it.

        Raises:
            Retry: The platform is busy.
            AlgorithmError: The algorithm raised.
            BrokerError: The platform refused, or did not answer.
        """
        body, kind = _body(value, delivery)
        answer = await self._post(body, kind)
        status = answer.status_code
        if status in _BUSY:
            wait = _http.retry_after(answer.headers)
            raise Retry(BUSY_DELAY if wait is None else wait)
        try:
            said = answer.json()
        except ValueError:
            said = None
        problem = said.get("error") if isinstance(said, dict) else None
        if isinstance(problem, dict) and status not in (401, 403, 404):
            raise self._raised(problem)
        if not answer.is_success:
            raise _refused(status, self._path, _http.scrubbed(problem, [self._key()]))
        if not isinstance(said, dict) or "result" not in said:
            raise OutcomeUnknownError(f"{self._path}: the platform's answer has no result. It is tried again.")
        about = said.get("metadata")
        return _result(said["result"], about.get("content_type") if isinstance(about, dict) else None, delivery)

    def _key(self) -> Secret:
        return _key(self._given)

    async def _post(self, body: bytes, kind: str) -> Any:  # noqa: ANN401 - httpx is imported where it is used
        import httpx

        headers = {"Authorization": f"Simple {self._key().reveal()}", "Content-Type": kind}
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
            # A redirect is refused, not followed: the key must not travel to another host.
            client = httpx.AsyncClient(timeout=None, limits=limits, follow_redirects=False)  # noqa: S113 - bounded below
            self._clients[loop] = client
        try:
            async with asyncio.timeout(self._timeout + GRACE):
                return await client.post(
                    self._url, params={"timeout": f"{self._timeout:g}"}, content=body, headers=headers
                )
        except TimeoutError as error:
            raise OutcomeUnknownError(
                f"{self._path}: no answer within {self._timeout + GRACE:g} s. Give it more time with timeout=."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionFailedError(
                f"{self._path}: the platform does not answer ({type(error).__name__})."
            ) from error

    def _raised(self, problem: Mapping[str, Any]) -> AlgorithmError:
        name = problem.get("error_type")
        words = _http.scrubbed(problem.get("message"), [self._key()]) or "it gave no message"
        return AlgorithmError(
            f"{self._path} raised: {words}", error_type=name if isinstance(name, str) and name else "AlgorithmError"
        )


def _refused(status: int, algorithm: str, words: str | None) -> BrokerError:
    more = f" ({words})" if words else ""
    if status == 401:
        return AuthenticationError(
            f"{algorithm}: the platform does not accept the key{more}. Correct ALGORITHMIA_API_KEY."
        )
    if status == 403:
        return PermissionDeniedError(f"{algorithm}: this key may not call it{more}. Ask its owner.")
    if status == 404:
        return NotFoundError(f"{algorithm}: there is no such algorithm or version{more}. Correct its name.")
    if status >= 500:
        return OutcomeUnknownError(f"{algorithm}: the platform answers HTTP {status}{more}.")
    return InvalidMessageError(f"{algorithm}: the platform answers HTTP {status}{more}.")


def _body(value: Any, delivery: Delivery | None) -> tuple[bytes, str]:  # noqa: ANN401 - any value
    """Give the bytes and the content type to send: what came, as it came, where it came by a message."""
    given = None if delivery is None else delivery.message
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), _TYPES["binary"]
    textual = given is None or (given.content_type or "").startswith("text/")
    if isinstance(value, str) and textual:
        return value.encode("utf-8", "surrogatepass"), _TYPES["text"]
    if given is not None and given.body is not None:
        return given.body, _TYPES["json"]
    from eventflows.codec import encode

    return encode(value)[0], _TYPES["json"]


def _result(value: Any, kind: object, delivery: Delivery | None) -> Any:  # noqa: ANN401 - any value
    if kind == "binary" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error):
            raise OutcomeUnknownError("the platform's answer says binary, and is not base64.") from None
    if kind == "json" and isinstance(value, str) and delivery is not None:
        import orjson

        return Message(orjson.dumps(value), content_type=_TYPES["json"])  # a str alone would be published as text
    return value
