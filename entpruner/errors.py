"""One exception for everything that a user can put right."""


class UserError(Exception):
    """Says in one line what is wrong, where, and what to do; the command line prints it without a traceback."""
