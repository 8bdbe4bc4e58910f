"""What tests of bad input share: the one line that refuses it, and a pickle with code in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from entpruner.errors import UserError


@contextmanager
def refused(begin: object, *words: str) -> Iterator[None]:
    """The block must raise one line that begins so and holds these words."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(begin)), message
    assert all(word in message for word in words), message


class Runs:
    """Pickled, it is a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call
