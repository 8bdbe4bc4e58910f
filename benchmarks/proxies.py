"""NTK and ZiCo statistics of one batch: by hooks, against one backward per sample. Bar: >= 5 times faster.

    python benchmarks/proxies.py [--depth 28 --hidden 1152 --heads 16 --size 32 --channels 4 --device cuda] [--out FILE]

For each sample, the loops take the gradient of the summed output (a row of the Gram matrix) and that of the training
loss (a term of the batch's gradient, for ZiCo). The first runs every backward through the batch's graph, as TE-NAS and
AutoProg-Zero do; the second gives the loop every advantage and passes each sample through the network alone.
"""

import torch
from interleaved import compare, network, parser, ratio, report
from torch import Tensor, nn

from entpruner.params.backbones import Diffusion
from entpruner.process import make_process
from entpruner.proxies.ntk import gram_matrix
from entpruner.proxies.zico import RunningGradient


def main() -> None:
    options = parser(__doc__, batch=16).parse_args()
    torch.set_num_threads(options.threads)
    model, process = network(options), make_process(Diffusion())
    random = torch.Generator().manual_seed(1)
    shape = (options.batch, options.channels, options.size, options.size)
    x, noise = (torch.randn(shape, generator=random).to(options.device) for _ in range(2))
    t = process.draw_times(options.batch, random, stratified=True).to(options.device)
    y = torch.randint(10, (options.batch,), generator=random).to(options.device)
    x_t = process.add_noise(x, noise, t)

    named = [p for name, p in model.named_parameters() if p.requires_grad and "weight" in name]
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]

    def hooks() -> tuple[Tensor, list[RunningGradient]]:
        gram = gram_matrix(model, x_t, t, y, [torch.ones(2 * options.channels, options.size, options.size)])
        loss = process.losses(model, x, noise, t, y)["loss"].mean()
        statistics = [RunningGradient(weight) for weight in layers]
        for running, gradient in zip(statistics, torch.autograd.grad(loss, layers), strict=True):
            running.add(gradient)
        return gram, statistics

    def loop(alone: bool) -> tuple[Tensor, list[RunningGradient]]:
        rows, mean = [], [torch.zeros_like(weight) for weight in layers]
        n = options.batch
        for samples in [slice(i, i + 1) for i in range(n)] if alone else [slice(0, n)]:
            f = model(x_t[samples], t[samples], y[samples]).flatten(1).sum(1)
            losses = process.losses(model, x[samples], noise[samples], t[samples], y[samples])["loss"]
            for i in range(len(f)):
                row = torch.autograd.grad(f[i], named, retain_graph=True)
                rows.append(torch.cat([gradient.flatten() for gradient in row]))
                for total, gradient in zip(
                    mean, torch.autograd.grad(losses[i], layers, retain_graph=True), strict=True
                ):
                    total += gradient / n
        g = torch.stack(rows).double()
        statistics = [RunningGradient(weight) for weight in layers]
        for running, gradient in zip(statistics, mean, strict=True):
            running.add(gradient)
        return g @ g.T, statistics

    gram, running = hooks()
    gram_by_loop, running_by_loop = loop(alone=True)
    error = (gram - gram_by_loop).abs().max() / gram_by_loop.abs().max()
    gradient_error = max(
        float((a.mean - b.mean).abs().max() / b.mean.abs().max()) for a, b in zip(running, running_by_loop, strict=True)
    )
    ours, batch, each = "by hooks", "a backward per sample, of the batch", "a backward per sample, of that sample"
    ways = {ours: hooks, batch: lambda: loop(alone=False), each: lambda: loop(alone=True)}
    seconds = compare(ways, options.repeats, options.device)
    report(
        options,
        f"NTK and ZiCo statistics of {options.batch} samples, {options.depth} blocks",
        seconds,
        times_faster_than_of_the_batch=ratio(seconds[batch], seconds[ours]),
        times_faster_than_of_that_sample=ratio(seconds[each], seconds[ours]),
        largest_relative_error_of_the_gram_matrix=float(error),
        largest_relative_error_of_a_gradient=gradient_error,
    )


if __name__ == "__main__":
    main()
