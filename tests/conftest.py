"""Options of the test run, and what test files share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test depends on how fast the machine is: no example has a deadline, and slow examples fail nothing.
# The examples follow from the test's code alone, so that each run tries the same ones and keeps no database of them.
settings.register_profile("entpruner", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("entpruner")

# A run of the tests that outlives its terminal (nohup) ignores SIGHUP. The commands that it starts must not inherit it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    default = Path(__file__).parent / "goldens"
    parser.addoption("--goldens", type=Path, default=default, help="folder of golden numbers to agree with")


@pytest.fixture(scope="module")
def process_settings() -> Iterator[None]:
    """Threads and determinism as they were: a command sets them for its process."""
    import torch  # not for the tests that do without

    threads, debug = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(debug)


@pytest.fixture
def gpu(process_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A GPU that is not there, of 80 GiB with 10 free, as PyTorch tells of it before it computes."""
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    precision = torch.get_float32_matmul_precision()
    yield monkeypatch
    torch.set_float32_matmul_precision(precision)
