"""What one params file may say: its keys, with types, limits and defaults. No other package lists them.

All settings are frozen and validated. Each section of a params file has a module, and ``study.py`` puts the sections
together. ``files.py`` reads params files and overlays, ``messages.py`` says in words what pydantic refuses, and
``problems.py`` finds where sections contradict each other. ``params/schema.json`` is exported from these classes.
``entpruner/study/arms.py`` expands the arms.
"""
