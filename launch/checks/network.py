"""Checks that processes can connect and run collectives."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

from launch.checks import CheckResult

TIMEOUT = 15
"""Seconds for two processes to meet."""


def gloo() -> Iterator[CheckResult]:
    """An all-reduce of two processes over the loopback device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = subprocess.Popen(
        [sys.executable, "-m", "launch.checks.handshake", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = pair.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        message = f"two processes did not meet in {TIMEOUT} s"
        yield CheckResult(
            "fail", "gloo", message, "GLOO_SOCKET_IFNAME=lo, or a firewall that lets them"
        )
        return
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pair.pid, signal.SIGKILL)
        pair.communicate()
    if output.strip() == "3.0":
        yield CheckResult("ok", "gloo", "two processes added up their numbers")
    else:
        last = (errors.strip().splitlines() or [f"1 + 2 was {output.strip() or 'nothing'}"])[-1]
        yield CheckResult("fail", "gloo", last, "GLOO_SOCKET_IFNAME=lo")


def names() -> Iterator[CheckResult]:
    """Agents tell each other this machine's name, and meet at MASTER_ADDR where that is set."""
    name = socket.gethostname()
    try:
        yield CheckResult("ok", "host name", f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        message = f"{name} has no address; other machines cannot find this one"
        yield CheckResult("warn", "host name", message, "a line for it in /etc/hosts or in DNS")
    yield from _master()


def _master() -> Iterator[CheckResult]:
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "29500")
    if not host:
        return
    remedy = "unset it, or name the first machine of the job"
    if not port.isdecimal():
        yield CheckResult("fail", "MASTER_PORT", f"{port!r} is no number", "unset it")
        return
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        yield CheckResult("ok", "MASTER_ADDR", f"{host}:{port} answers")
    except socket.gaierror:
        yield CheckResult("fail", "MASTER_ADDR", f"{host} has no address", remedy)
    except ConnectionRefusedError:
        yield CheckResult("ok", "MASTER_ADDR", f"{host} is there; nothing listens at {port} yet")
    except OSError as error:
        yield CheckResult(
            "warn", "MASTER_ADDR", f"{host}:{port} cannot be reached: {error}", remedy
        )
