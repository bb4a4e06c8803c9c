"""The options of `kafka://`."""

from __future__ import annotations

import datetime
import os
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final, Literal

from eventflows.errors import ConfigError
from eventflows.protocols import Location, Option
from eventflows.secret import Secret

MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^\s,:/]+)(:\d{1,5})?")


def _text(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _secret(value: object) -> Secret:
    if not isinstance(value, Secret):
        raise ValueError("expected Secret(...), Secret.env(...) or Secret.file(...)")
    return value


def _flag(value: object) -> bool:
    if value in (True, "", "true"):
        return True
    if value in (False, "false"):
        return False
    raise ValueError('expected "true" or "false"')


def _seconds(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 < number < float("inf"):
        raise ValueError("expected seconds, more than 0")
    return number


def _pause(value: object) -> float:
    return 0.0 if str(value) in ("0", "0.0") else _seconds(value)


def _one_of(*allowed: str) -> Any:  # noqa: ANN401 - a parser of an Option
    def parse(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}")
        return str(value)

    return parse


def _from(value: object) -> str | datetime.datetime:
    if value in ("earliest", "latest"):
        return str(value)
    if isinstance(value, str):
        try:  # a plus sign in a URL may arrive as a space
            value = datetime.datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", value))
        except ValueError:
            value = None
    if not isinstance(value, datetime.datetime):
        raise ValueError('expected "earliest", "latest" or a time such as 2026-01-01T00:00:00Z')
    if value.tzinfo is None:
        raise ValueError("the time needs a time zone, such as Z or +01:00")
    return value


_COMMON: Final = (
    Option(name="client", parse=_one_of("kafka-python", "librdkafka"), about='which client (default "kafka-python")'),
    Option(name="username", parse=_text, about="the SASL user; needs password"),
    Option(name="password", parse=_secret, about="the SASL user's password, as a Secret; a keyword only"),
    Option(name="sasl", parse=_one_of(*MECHANISMS), about="the mechanism (default SCRAM-SHA-512)"),
    Option(name="tls", parse=_flag, about="encrypt; ca, cert and key imply it (default false)"),
    Option(name="ca", parse=_text, about="certificates to trust: a path, or PEM text (default: the system's)"),
    Option(name="cert", parse=_text, about="path of the client's certificate, PEM, for mutual TLS"),
    Option(name="key", parse=_text, about="path of its private key, PEM (default: in the file of cert)"),
)
SOURCE: Final = (
    *_COMMON,
    Option(name="group", parse=_text, about="the consumer group that shares the messages"),
    Option(name="from", parse=_from, about='where a new group begins: "earliest" (default), "latest" or a time'),
    Option(name="session_timeout", parse=_seconds, about="seconds after which a silent member is out (default 45)"),
    Option(name="poll_interval", parse=_seconds, about="seconds after which a member that hangs is out (default 300)"),
    Option(name="instance", parse=_text, about="a name of its own for static membership (default: none)"),
    Option(name="assignor", parse=_one_of("cooperative", "range"), about='who gets what (default "cooperative")'),
    Option(name="pattern", parse=_flag, about="the topic is a regular expression over all topics (default false)"),
    Option(name="isolation", parse=_one_of("read_committed", "read_uncommitted"), about="default read_committed"),
)  # fmt: skip
DESTINATION: Final = (
    *_COMMON,
    Option(name="compression", parse=_one_of("none", "gzip", "snappy", "lz4", "zstd"), about="default none"),
    Option(
        name="linger",
        parse=_pause,
        about="seconds to wait for more of a batch (default 0; with client=librdkafka 0.0005)",
    ),
)


def topics(location: Location) -> list[str]:
    """Give the topics of a source's URL."""
    return location.path.split(",")


def validate(location: Location, options: Mapping[str, object], side: Literal["source", "destination"]) -> None:
    """Refuse what does not fit together; connects to nothing.

    Raises:
        ConfigError: It says what, and the next step.
    """
    where = location.text
    if not location.authority or not all(_HOST.fullmatch(host) for host in location.authority.split(",")):
        raise ConfigError(
            f"{where}: the hosts are missing or not host:port; write kafka://broker1:9092,broker2:9092/topic."
        )
    if options.get("pattern"):
        try:
            re.compile(location.path)
        except re.error as error:
            raise ConfigError(f"{where}: the pattern is not a regular expression: {error}.") from None
    elif side == "destination" and not _NAME.fullmatch(location.path):
        raise ConfigError(f"{where}: one topic is needed, of letters, digits, '.', '_' and '-'.")
    elif not all(_NAME.fullmatch(name) for name in topics(location)):
        raise ConfigError(f"{where}: topics are needed, of letters, digits, '.', '_' and '-', separated by commas.")
    if side == "source" and not options.get("group"):
        raise ConfigError(f"{where}: a source needs a group; write {where}{'&' if '?' in where else '?'}group=name.")
    if "poll_interval" in options and poll_interval(options) < session_timeout(options):
        raise ConfigError(f"{where}: poll_interval= is below session_timeout=, {session_timeout(options):g}; raise it.")
    if ("username" in options) != ("password" in options):
        raise ConfigError(f"{where}: username= and password= go together; give both or neither.")
    if "sasl" in options and "username" not in options:
        raise ConfigError(f"{where}: sasl= needs username= and password=.")
    if "key" in options and "cert" not in options:
        raise ConfigError(f"{where}: key= needs cert=.")
    if options.get("tls") is False and any(name in options for name in ("ca", "cert")):
        raise ConfigError(f"{where}: ca= and cert= need TLS; leave tls=false out.")


def encrypted(options: Mapping[str, object]) -> bool:
    """Say whether TLS is wanted."""
    return bool(options.get("tls")) or "ca" in options or "cert" in options


def protocol(options: Mapping[str, object]) -> str:
    """Name the security protocol as Kafka does."""
    return ("SASL_" if "username" in options else "") + ("SSL" if encrypted(options) else "PLAINTEXT")


def session_timeout(options: Mapping[str, object]) -> float:
    """Give the seconds after which a silent member is out."""
    return float(str(options.get("session_timeout", 45.0)))


def poll_interval(options: Mapping[str, object]) -> float:
    """Give the seconds after which a member that does not poll is out."""
    return float(str(options.get("poll_interval", max(300.0, session_timeout(options)))))


def load_tls(location: Location, options: Mapping[str, object]) -> ssl.SSLContext:
    """Read the CA, the certificate and its key.

    Raises:
        ConfigError: One of them cannot be used.
    """
    ca = options.get("ca")
    pem = isinstance(ca, str) and "-----BEGIN" in ca
    try:
        context = ssl.create_default_context(
            cadata=str(ca) if pem else None, cafile=None if pem or ca is None else str(ca)
        )
    except (OSError, ssl.SSLError) as error:
        shown = "the PEM text" if pem else ca
        raise ConfigError(f"{location.text}: ca=: {shown} cannot be used: {type(error).__name__}.") from error
    if "cert" in options:
        key = options.get("key")
        try:
            context.load_cert_chain(str(options["cert"]), None if key is None else str(key))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{location.text}: cert= and key= cannot be used: {type(error).__name__}.") from error
    return context
