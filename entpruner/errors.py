"""One exception for everything that a user can put right, and one for work that goes on another time."""


class UserError(Exception):
    """Says in one line what is wrong, where, and what to do; the command line prints it without a traceback."""


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The work was asked to stop, and has kept what it did: the same command goes on from there."""
