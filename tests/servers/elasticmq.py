"""ElasticMQ: SQS in Java, in its strict mode, one for each test process."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from servers.maven import jars
from servers.process import Server, free_port

VERSION = "1.7.1"
REGION = "eu-west-1"
ACCOUNT = "000000000000"
_SETTINGS = """include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}
rest-stats {{ enabled = false }}
generate-node-address = false
aws {{ region = {region}, accountId = "{account}" }}
"""


def fetch() -> list[Path]:
    """Give its jars, fetched once."""
    return jars(f"org.elasticmq:elasticmq-server_2.13:{VERSION}")


class ElasticMq:
    """A running ElasticMQ."""

    def __init__(self) -> None:
        libraries = fetch()
        server = Server("elasticmq", free_port())
        settings = server.folder / "elasticmq.conf"
        settings.write_text(_SETTINGS.format(port=server.port, region=REGION, account=ACCOUNT))
        server.start(
            ["java", "-Xmx384m", f"-Dconfig.file={settings}", "-cp", os.pathsep.join(map(str, libraries)),
             "org.elasticmq.server.Main"],
        )  # fmt: skip
        self.server = server
        self.port = server.port
        self.endpoint = f"http://127.0.0.1:{server.port}"

    def client(self) -> Any:
        """Make a boto3 client of it."""
        return client(self.endpoint)


def client(endpoint: str, service: str = "sqs", region: str = REGION) -> Any:
    """Make a boto3 client with credentials that a local server does not look at."""
    return _session().client(service, endpoint_url=endpoint, region_name=region)


@functools.cache
def _session() -> Any:
    import boto3

    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test")


@functools.cache
def elasticmq() -> ElasticMq:
    """Give the one of this process; it is stopped when the process ends."""
    return ElasticMq()
