"""The digits demo on Amazon SQS: the same two flows, with ElasticMQ as a local server.

Only the URLs differ. The queue of images has a redrive policy, so its dead letters have a place.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tests"))
os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_EC2_METADATA_DISABLED": "true"}

import pytest

from servers.elasticmq import ACCOUNT, REGION, elasticmq


def queues() -> None:
    """Make the queues, and say where they are."""
    sqs = elasticmq().client()
    for name in ("images-dead", "images", "scores"):
        policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:images-dead", "maxReceiveCount": 10}
        sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(policy)} if name == "images" else {})
    for name in ("images", "scores"):
        url = f"sqs://{REGION}/{ACCOUNT}/{name}?endpoint={elasticmq().endpoint}"
        os.environ[f"EVENTFLOWS_DIGITS_{name.upper()}"] = url


if __name__ == "__main__":
    try:
        queues()
        import demo  # the flows read the variables when they are imported

        sys.exit(demo.main())
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        sys.exit(f"make demo-sqs {missing}")
    except KeyboardInterrupt:
        print("stopped; the local server and its queues are gone", file=sys.stderr)
        sys.exit(130)
