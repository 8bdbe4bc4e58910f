"""Hostile trials of the smoke study, which ``make chaos`` runs: what survives being killed, and which damage is found.

A trial belongs to a kind and has a number. All that is random in it follows from the seed, the kind and the number, so
that it can be repeated alone. What is done is kept in a folder, and the next start goes on with the rest.

- ``trees``: whole runs of the study, each of which is killed, or stopped in another way, several times (``trees.py``).
- ``commands``: single commands that end at one of their file-system events (``commands.py``).
- ``bytes``: a flipped byte in a file of the finished study (``flips.py``).
"""
