"""The block-importance criteria: every other file of this folder is one, and its name is the criterion's.

Such a file has a function ``score``, which takes a ``ScoreContext`` and returns an ``Importance``, and constants that
``params/criteria.py`` describes and reads without importing the file: ``COST``, and where they hold ``SIZED``,
``NEEDS_IMAGES``, ``IN_PARTS`` and ``TRANSFORMERS_ONLY``. Nothing else needs to name a criterion.
"""
