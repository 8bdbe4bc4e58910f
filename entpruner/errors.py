"""One exception for everything that a user can put right, and one for work that goes on another time."""


class UserError(Exception):
    """Says in one line what is wrong, where, and what to do; the command line prints it without a traceback.

    What a file says of itself may be in it, so characters that speak to a terminal are written as escapes.
    """

    def __init__(self, message: str) -> None:
        shown = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in message)
        super().__init__("".join(shown))


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The work was asked to stop, and has kept what it did: the same command goes on from there."""
