"""The boto3 client: credentials by the ordinary chain, roles by STS, settings that suit a consumer."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from eventflows.adapters._sqs_errors import translate
from eventflows.adapters._sqs_held import ON_ITS_WAY
from eventflows.adapters._sqs_place import Place
from eventflows.errors import ConfigError, MissingExtraError

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = ON_ITS_WAY
"""Longer than the longest poll: a poll that is cut hides the message that was on its way. Not much longer: a connection
that went dead without a word is noticed after this time."""
ROLE_SECONDS: Final = 3600
"""How long an assumed role lasts. Shorter than half an hour, the client asks STS before every request: it renews
15 minutes ahead. Source: botocore, RefreshableCredentials."""
ROLE_SESSION: Final = "eventflows"

_making = threading.Lock()  # a client is made by one thread at a time (boto3, "Multithreading")


def _after_fork() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def installed() -> None:
    """Check that the client is there.

    Raises:
        MissingExtraError: It is not.
    """
    try:
        import boto3  # noqa: F401 - only whether it is there
    except ImportError:
        raise MissingExtraError("sqs:// needs boto3. Install eventflows[sqs].") from None


def client(place: Place, options: Mapping[str, object], *, connections: int, service: str = "sqs") -> Any:  # noqa: ANN401 - boto3 has no types
    """Make a client.

    Args:
        place: The queue.
        options: `profile`, `role_arn`, `external_id`.
        connections: Calls at once.
        service: Of AWS.

    Raises:
        ConfigError: No region, or no such profile.
        BrokerError: By its class: credentials to mend, or that it is worth trying again.
    """
    from importlib.metadata import version

    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, NoRegionError, ProfileNotFound

    settings = Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # the core tries again, and says so
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=connections,
        tcp_keepalive=True,
        # Two tenths of what a call costs: botocore composes its long user agent anew for each, and checks what the
        # adapter has checked.
        user_agent=f"Boto3/{version('boto3')} eventflows",
        parameter_validation=False,
    )
    with _making:
        try:
            session, region = _session(place, options)
            endpoint = place.endpoint if service == "sqs" else None
            return session.create_client(service, region_name=region, endpoint_url=endpoint, config=settings)
        except ProfileNotFound as error:
            raise ConfigError(f"{place.text}: {error}. Correct profile=, or make it in ~/.aws/config.") from error
        except NoRegionError as error:
            raise ConfigError(f"{place.text}: in which region? Write sqs://region/..., or give region=.") from error
        except BotoCoreError as error:
            raise translate(error, place.text, "making a client") from error


@functools.cache
def _loader(folders: str | None) -> object:
    """Give the one reader of the service's description: each of its own takes 70 ms and 8 MiB to read it again."""
    from botocore.loaders import create_loader

    return create_loader(folders)


def _core(options: Mapping[str, object]) -> Any:  # noqa: ANN401
    import botocore.session

    core = botocore.session.Session(profile=options.get("profile"))
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return core


def _session(place: Place, options: Mapping[str, object]) -> tuple[Any, str | None]:
    core = _core(options)
    region = place.region or core.get_config_variable("region") or ("us-east-1" if place.endpoint else None)
    if options.get("role_arn") is not None:
        core = _with_role(core, options, region)
    return core, region


class _Role:
    """Gives the role's credentials, assumed at the first request and renewed under a lock when they age."""

    def __init__(self, credentials: object) -> None:
        self._credentials = credentials

    def load_credentials(self) -> object:
        """Give them, as botocore's credential resolver does."""
        return self._credentials


def _with_role(source: Any, options: Mapping[str, object], region: str | None) -> Any:  # noqa: ANN401
    from botocore.config import Config
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError

    own = source.get_credentials()
    if own is None:
        raise NoCredentialsError
    more = {"RoleSessionName": ROLE_SESSION, "DurationSeconds": ROLE_SECONDS}
    if options.get("external_id") is not None:
        more["ExternalId"] = str(options["external_id"])
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=CONNECT_SECONDS, retries={"total_max_attempts": 2})
    fetcher = AssumeRoleCredentialFetcher(
        functools.partial(source.create_client, region_name=region, config=config),
        own,
        str(options["role_arn"]),
        extra_args=more,
    )
    session = _core(options)
    credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    session.register_component("credential_provider", _Role(credentials))
    return session
