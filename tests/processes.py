"""Several processes that meet as those of torchrun do, on the CPU: forks of the test's own, which has torch loaded."""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryDirectory

import torch

from entpruner.system import parallel
from entpruner.system.launch import on_loopback


def in_processes(count: int, job: Callable[[], None]) -> None:
    """Run ``job`` in ``count`` processes that have joined; fails if it raises in one of them, and then ends all."""
    failed = False
    with TemporaryDirectory() as folder:
        children = [os.fork() or one_of(count, rank, folder, job) for rank in range(count)]
        for _ in children:
            _, status = os.wait()
            if status and not failed:
                failed = True
                for child in children:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
    assert not failed


def one_of(count: int, rank: int, folder: str, job: Callable[[], None]) -> int:
    here = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= here | on_loopback(folder)
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
