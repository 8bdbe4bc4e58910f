"""A parser of command lines that says which command or option was probably meant."""

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """As argparse's, but texts are shown as they are written, and a misspelt word is answered with the nearest one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuses at once what it does not know: argparse would do so in its first parser, which has no options."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return given, unknown

    def error(self, message: str) -> NoReturn:
        """End with the usage, what is wrong, and the nearest word that is right."""
        wrong = re.findall(r"invalid choice: '([^']*)'|unrecognized arguments: (\S+)", message)
        near = [word for words in wrong for word in get_close_matches("".join(words), self.words(), n=1)]
        super().error(message + (f"; did you mean {near[0]}?" if near else ""))

    def words(self) -> Sequence[str]:
        """The options, and the values of those that have a choice of values; a command is such a value."""
        choices = [str(word) for action in self._actions for word in action.choices or ()]
        return [*self._option_string_actions, *choices]
