"""Options of the test run, and what test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest


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
