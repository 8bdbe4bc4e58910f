"""Several processes that meet as those of torchrun do, on the CPU: forks of the test's own, which has torch loaded."""

import os
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress

import torch

from entpruner import parallel


def in_processes(count: int, job: Callable[[], None]) -> None:
    """Run ``job`` in ``count`` processes that have joined; fails if it raises in one of them, and then ends all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [os.fork() or one_of(count, rank, port, job) for rank in range(count)]
    failed = False
    for _ in children:
        _, status = os.wait()
        if status and not failed:
            failed = True
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
    assert not failed


def one_of(count: int, rank: int, port: int, job: Callable[[], None]) -> int:
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    code = 1
    try:
        torch.set_num_threads(1)
        parallel.join(torch.device("cpu"))
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
