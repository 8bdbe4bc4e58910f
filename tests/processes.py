"""Forks of the test's own process, which has loaded its libraries: one, or several that meet as torchrun's do."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any


def in_a_fork(job: Callable[[], Any]) -> int:
    """The exit code of a process of its own that does ``job``, less than zero for a signal."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        job()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


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
    import torch  # not for the tests that do without

    from entpruner.system import parallel
    from entpruner.system.launch import on_loopback

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
