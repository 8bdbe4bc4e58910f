"""One module a rule: the settings it is given, and ``run``, whose keyword arguments are its paths."""
