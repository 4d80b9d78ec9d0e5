"""The elastic agent: starts and supervises a process for each device of one machine, as torchrun does.

torchrun kills its processes when it is stopped, restarts processes that ended on purpose, and exits
with status 1 whatever theirs was. This agent takes torchrun's arguments, forwards signals and waits, so
that a training can write its checkpoint; does not restart processes whose status is final; gives each
restart a new rendezvous store; and exits with the status of its processes.

    python -m launch.submit.agent --standalone --nproc-per-node 2 --module launch.cli pretrain …
"""

import os
import signal
import sys
from collections.abc import Collection
from typing import Any

from launch.submit.config import INTERRUPTED, NOT_RESUMABLE, RESUMABLE, USER_ERROR

FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
FINAL_STATUSES = (RESUMABLE, NOT_RESUMABLE, USER_ERROR, INTERRUPTED)
"""Statuses after which nothing is started again."""
DISABLE_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""By default processes meet in the agent's store, where restarted ones find the addresses of their
predecessors and wait for them in vain (pytorch issue 135712)."""
CPP_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


class SignalForwarder:
    """Forwards signals to the processes, and records that one was received."""

    def __init__(self) -> None:
        self.signalled = False
        self.agent: Any = None

    def listen(self, agent: Any = None) -> None:
        self.agent = agent
        for number in FORWARDED_SIGNALS:
            signal.signal(number, self._forward)

    def _forward(self, number: int, _: Any) -> None:
        self.signalled = True
        running = [process for process in self._processes() if process.poll() is None]
        if not running:  # none has started, so nothing is lost
            raise SystemExit(INTERRUPTED if number == signal.SIGINT else RESUMABLE)
        for process in running:
            process.send_signal(number)

    def _processes(self) -> list[Any]:
        context = self.agent and self.agent._pcontext
        return [handler.proc for handler in context.subprocess_handlers.values()] if context else []


def main(arguments: list[str]) -> int:
    """Runs until all processes have ended; returns the status for all of them."""
    forwarder = SignalForwarder()
    forwarder.listen()
    quiet = CPP_LOG_LEVEL not in os.environ
    os.environ.setdefault(CPP_LOG_LEVEL, "FATAL")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher import api

    api.LocalElasticAgent = _agent_class(forwarder)  # type: ignore[attr-defined]
    if quiet:  # of the agent alone, which says itself when nodes cannot meet
        del os.environ[CPP_LOG_LEVEL]
    os.environ[DISABLE_SHARED_STORE] = "1"
    options = run.parse_args(arguments)
    if options.nproc_per_node.isdecimal():
        cores = len(os.sched_getaffinity(0)) // int(options.nproc_per_node)
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
    try:
        run.run(options)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        return combined_status(codes, forwarder.signalled)
    except SignalException:  # before the processes installed their handlers
        return RESUMABLE
    except RendezvousError as error:
        where, met = options.rdzv_endpoint, forwarder.agent is not None
        print(
            f"vitrine: {rendezvous_failure(where, met)} ({type(error).__name__})", file=sys.stderr
        )
        return RESUMABLE if met else USER_ERROR
    return 0


def rendezvous_failure(where: str, met: bool) -> str:
    """The message for a failed rendezvous; `met`: whether the nodes had met before."""
    if met:
        return f"lost {where}, where the nodes meet; start the same command again on every node"
    return (
        f"the nodes cannot meet at {where}; start the same command on every node, with an "
        "--rdzv_endpoint that is the first node's name and a free port of it, reachable from all"
    )


def combined_status(codes: Collection[int], signalled: bool) -> int:
    """The agent's exit status, from those of the failed processes (negative: killed by a signal).

    A status that a process chose itself takes precedence over the errors that its exit caused in others.
    """
    for status in FINAL_STATUSES:
        if status in codes:
            return status
    if signalled and any(-number in codes for number in FORWARDED_SIGNALS):
        return RESUMABLE  # signalled before their handlers were installed
    first = next(iter(codes))
    return first if first > 0 else 128 - first


def _agent_class(forwarder: SignalForwarder) -> type:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    class Agent(LocalElasticAgent):
        def _start_workers(self, worker_group: Any) -> dict[int, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
            started = super()._start_workers(worker_group)  # type: ignore[call-arg]
            forwarder.listen(self)  # overrules the handlers that torch has just put in
            return started

        def _monitor_workers(self, worker_group: Any) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
            result = super()._monitor_workers(worker_group)  # type: ignore[call-arg]
            codes = {failure.exitcode for failure in result.failures.values()}
            if forwarder.signalled or codes.intersection(FINAL_STATUSES):
                self._remaining_restarts = 0
            return result

    return Agent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
