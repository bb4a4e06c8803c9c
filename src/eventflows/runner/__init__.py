"""The core: receives, runs `apply`, publishes, settles. It takes plain values and knows nothing of decorators."""

from eventflows.runner.lifecycle import Runner
from eventflows.runner.plan import Plan
from eventflows.runner.result import RunResult

__all__ = ["Plan", "RunResult", "Runner"]
