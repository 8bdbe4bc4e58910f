"""A study: what one params file may say, with types, limits and defaults. The one place that knows its keys.

Everything here is frozen and validated. A section has a module; ``study.py`` puts them together, ``problems.py`` says
where they contradict each other, ``files.py`` reads params files and overlays. ``params/schema.json`` is exported from
these classes. The expansion of arms and what a rule hands to its command are in ``entpruner/study/arms.py``.
"""
