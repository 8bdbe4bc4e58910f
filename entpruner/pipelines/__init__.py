"""Pruning the transformers of diffusers, whatever their class: the class stays, and the count of its blocks changes.

Nothing here knows a class by its layers. Blocks are found by building a network with one block more (``blocks.py``),
the way of the hidden states by watching one pass (``replay.py``), and inputs by watching the stock pipeline run
(``capture.py``). A few classes need a rule of their own, and some are refused: see ``blocks.py`` and ``surgery.py``.
"""
