"""CED of all blocks: prefix-cached, against a full forward of every pruned network. Bar: <= 0.6 of the time.

    python benchmarks/ced.py [--depth 28 --hidden 1152 --heads 16 --size 32 --channels 4 --device cuda] [--out FILE]

Both ways compute the same scores from the same draws; only where the outputs come from differs.
"""

from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from interleaved import compare, network, parser, ratio, report
from torch import Tensor

from entpruner.data.store import ImageSet
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Diffusion
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.process import make_process
from entpruner.scores import ScoreContext, Scores, score


def main() -> None:
    options = parser(__doc__, draws=256, batch=128).parse_args()
    torch.set_num_threads(options.threads)
    model = network(options)
    pruned = [drop_blocks(model, {block}) for block in model.kept_blocks]
    random = np.random.default_rng(0)
    shape = (options.draws, options.channels, options.size, options.size)
    context = ScoreContext(
        model=model,
        process=make_process(Diffusion()),
        images=ImageSet(random.integers(0, 256, shape, dtype=np.uint8), random.integers(0, 10, options.draws), 10),
        settings=Scoring(draws=options.draws, batch_size=options.batch),
        sampling=Sampling(),
        seed=0,
        artefact="benchmark",
        device=torch.device(options.device),
    )

    @torch.no_grad()
    def full_forwards(model: Transformer, x_t: Tensor, t: Tensor, y: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        yield None, model(x_t, t, y)
        for position, without in enumerate(pruned):
            yield position, without(x_t, t, y)

    def cached() -> Scores:
        return score("ced", context)

    def by_hand() -> Scores:
        with mock.patch("entpruner.scores.prefix.removal_outputs", full_forwards):
            return score("ced", context)

    difference = max(abs(a - b) for a, b in zip(cached().value, by_hand().value, strict=True))
    cache, full = "prefix-cached", "a full forward without each block"
    seconds = compare({cache: cached, full: by_hand}, options.repeats, options.device)
    report(
        options,
        f"CED of {options.depth} blocks, {options.draws} draws",
        seconds,
        ratio=ratio(seconds[cache], seconds[full]),
        largest_difference_of_a_score=difference,
    )


if __name__ == "__main__":
    main()
