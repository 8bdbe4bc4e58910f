"""Every other block, or as many as asked for: the blocks that stay are spread evenly from the first to the last.

Source: BK-SDM (Kim et al. 2024), which keeps one of two like blocks, in TinyFusion's form for a DiT of 28 blocks
("oracle BK-SDM": 0, 2, 4, 6, 8, 10, 12, 15, 17, 19, 21, 23, 25, 27 stay). The rule for other counts is ours and gives
this list too: to keep K of L blocks, block i (L-1)/(K-1), rounded, stays for i = 0 … K-1. To keep one, the first stays.
"""

from entpruner.scores.context import Context, Importance, removal

COST = 0
SIZED = True


def score(context: Context) -> Importance:
    """0 for the blocks that the pattern removes, 1 for the others."""
    depth = len(context.model.blocks)
    return removal(context, set(range(depth)) - evenly_spread(depth, depth - context.set_size))


def evenly_spread(depth: int, count: int) -> set[int]:
    """``count`` of the positions 0 … depth-1, from the first to the last in steps as even as whole numbers allow."""
    return {round(i * (depth - 1) / max(count - 1, 1)) for i in range(count)}
