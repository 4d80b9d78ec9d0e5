"""Processes that run the stages of a pipeline at the same time, each with its share of the cores.

Small networks gain little from a second thread: two stages on a core each end sooner than one after the
other on two cores.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from launch.cli import exit_process, exit_status
from launch.library_logging import redirect_library_logs
from launch.pipeline.config import PipelineConfig
from launch.pipeline.stages import pipeline_stages

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STOP_CODES = (75, 77, 130)
"""Exit codes of a stage that was stopped (see `launch.cli.exit_status`), the most informative first."""
Order = tuple[str, int]
"""(name of a stage, number of stages that share the cores)."""


class StageWorker:
    """A process that runs stages by name, one at a time."""

    def __init__(self, config: PipelineConfig, output: Path, build_trainer: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, config, output, build_trainer), name="stages"
        )
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it can end in order
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def send(self, message: Order | int | None) -> None:
        """A stage to run, a signal to raise, or None to end."""
        with suppress(OSError):  # it has ended, which `WorkerPool.wait` sees
            self.connection.send(message)


class WorkerPool:
    """A few workers; stopped together by a signal, and by the failure of one stage."""

    def __init__(self, size: int, config: PipelineConfig, output: Path, build_trainer: Any) -> None:
        self.size = size
        self.idle = [StageWorker(config, output, build_trainer) for _ in range(size)]
        self.busy: dict[StageWorker, str] = {}

    @property
    def has_idle(self) -> bool:
        return bool(self.idle)

    def start(self, stage: str, sharing: int) -> None:
        """Starts a stage, with 1 / `sharing` of the cores, on the worker that was idle for longest."""
        worker = self.idle.pop(0)
        self.busy[worker] = stage
        worker.send((stage, sharing))

    def wait(self) -> list[tuple[str, float]]:
        """Waits for stages to end: their names, and the seconds they took.

        Raises SystemExit with the exit code of one that failed or was stopped, after the others have been
        stopped, too.
        """
        ended, codes = self._collect()
        if codes:
            if not set(codes) <= set(STOP_CODES):
                self.signal(signal.SIGTERM)
            while self.busy:
                codes += self._collect()[1]
            raise SystemExit(_exit_code(codes))
        return ended

    def _collect(self) -> tuple[list[tuple[str, float]], list[int]]:
        """(stage, seconds) of those that ended, and exit codes of processes that did."""
        workers = {worker.connection: worker for worker in self.busy}
        ended, codes = [], []
        for connection in wait(list(workers)):
            assert isinstance(connection, Connection)
            worker = workers[connection]
            stage = self.busy.pop(worker)
            try:
                ended.append((stage, connection.recv()))
                self.idle.append(worker)
            except (EOFError, ConnectionResetError):
                worker.process.join()
                codes.append(worker.process.exitcode or 1)
        return ended, codes

    def signal(self, number: int) -> None:
        """Raises a signal in each worker that runs a stage."""
        for worker in self.busy:
            worker.send(int(number))

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Passes stop signals on to the workers, and ends them all at the end of the block."""

        def forward(number: int, _: Any) -> None:
            self.signal(number)

        handlers = {}
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for worker in self.idle:
                worker.send(None)
                worker.process.join()
            for worker in self.busy:
                worker.connection.close()  # which ends it
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _exit_code(codes: list[int]) -> int:
    """That of a failure, else of a stop, else of a killed process as shells count it."""
    failures = [code for code in codes if code > 0 and code not in STOP_CODES]
    stops = [code for code in STOP_CODES if code in codes]
    killed = [128 - code for code in codes if code < 0]
    return [*failures, *stops, *killed][0]


def _serve(
    connection: Connection, config: PipelineConfig, output: Path, build_trainer: Any
) -> None:
    """Runs the stages whose names arrive, until the command ends."""
    os.setsid()  # Ctrl-C in a terminal reaches the command alone, which passes it on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["TTY_COMPATIBLE"] = (
        "0"  # lines, since several progress bars would overwrite each other
    )
    redirect_library_logs()
    orders: SimpleQueue[Order | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, orders), daemon=True).start()
    exit_process(
        exit_status(lambda: _run_orders(connection, orders, config, output, build_trainer))
    )


def _receive(connection: Connection, orders: "SimpleQueue[Order | None]") -> None:
    """Puts stages into the queue and raises signals; ends the process where the command was killed."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if isinstance(message, int):
            os.kill(os.getpid(), message)
        else:
            orders.put(message)
            if message is None:
                return


def _run_orders(
    connection: Connection,
    orders: "SimpleQueue[Order | None]",
    config: PipelineConfig,
    output: Path,
    build_trainer: Any,
) -> None:
    stages = {stage.name: stage for stage in pipeline_stages(config, output, build_trainer)}
    if orders.empty():
        _import_stages()  # while it has nothing else to do
    while (order := orders.get()) is not None:
        name, sharing = order
        started = time.perf_counter()
        if stages[name].kind != "world":
            _share_cores(sharing)
        stages[name].run()
        connection.send(time.perf_counter() - started)


def _import_stages() -> None:
    for name in ("pretrain.run", "finetune.run", "generate.text.run", "generate.image.run"):
        import_module(name)
    import_module("generate.showcase")


def _share_cores(sharing: int) -> None:
    """Sets torch's threads to a share of those that it would use alone."""
    import torch

    global _all_threads
    _all_threads = _all_threads or torch.get_num_threads()
    torch.set_num_threads(max(1, _all_threads // sharing))


_all_threads = 0
