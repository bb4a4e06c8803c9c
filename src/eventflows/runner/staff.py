"""The workers of a run, of the kind that its plan asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventflows.errors import LoadError
from eventflows.observe import Observers
from eventflows.observe.logging import shown
from eventflows.runner.calling import Apply, Caller
from eventflows.runner.outputs import Packer
from eventflows.runner.plan import Plan
from eventflows.runner.runs import Report, Worker
from eventflows.runner.workers import ThreadWorker


def start_workers(
    plan: Plan,
    packer: Packer | None,
    observers: Observers,
    post: Callable[[Report], None],
    given_up: Callable[[], bool],
) -> Sequence[Worker]:
    """Load, and start `plan.workers` workers.

    Args:
        plan: The flow.
        packer: Makes messages of results; None: results go nowhere.
        observers: Told of calls.
        post: Takes reports; from any thread.
        given_up: Asked while processes load; loading ends when it says so.

    Raises:
        LoadError: `load()` raised.
    """
    if plan.executor == "process":
        return _processes(plan, packer, observers, post, given_up)
    apply = Apply(
        call=loaded(plan), decoder=plan.decoder, wants_delivery=plan.wants_delivery, batch=plan.batch,
        timeout=plan.timeout,
    )  # fmt: skip
    caller = Caller(apply, observers)
    if plan.is_async:
        from eventflows.runner.coroutines import CoroutineWorker

        return [CoroutineWorker(caller, packer=packer, post=post, flow=plan.name) for _ in range(plan.workers)]
    return [
        ThreadWorker(
            caller, packer=packer, post=post, flow=plan.name, name=f"eventflows {plan.name} worker {number}"
        )
        for number in range(plan.workers)
    ]  # fmt: skip


def _processes(
    plan: Plan,
    packer: Packer | None,
    observers: Observers,
    post: Callable[[Report], None],
    given_up: Callable[[], bool],
) -> Sequence[Worker]:
    from eventflows.runner.processes import ProcessWorker

    assert plan.reference is not None  # noqa: S101 - for the type checker: the flow gave one
    workers = [
        ProcessWorker(
            plan, plan.reference, packer=packer, observers=observers, post=post,
            name=f"eventflows {plan.name} worker {number}",
        )
        for number in range(plan.workers)
    ]  # fmt: skip
    try:
        for worker in workers:
            worker.ready(given_up)
    except BaseException:
        for worker in workers:
            worker.kill()
        raise
    return workers


def loaded(plan: Plan) -> Callable[..., object]:
    """Load the state, once per process, and give what is called.

    Raises:
        LoadError: `load()` raised.
    """
    try:
        return plan.prepare()
    except Exception as error:
        failure = LoadError(
            f"flow {plan.name}: load() raised {shown(error)}; no message was taken. Mend it and start again."
        )
        raise failure from error
