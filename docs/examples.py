"""Run five commands on tiny models with random weights, and write docs/examples.md with what they print.

    python docs/examples.py [--check]

With ``--check`` nothing is written: the exit code says whether the page still shows what the commands print. Times and
other numbers with a dot may differ, because they depend on the machine.
"""

import argparse
import contextlib
import difflib
import io
import logging
import re
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/examples.md"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_pipelines import small_pipeline  # noqa: E402

from entpruner.cli import main as entpruner  # noqa: E402
from entpruner.models.checkpoints import ModelCard, save_model  # noqa: E402
from entpruner.models.transformer import Transformer  # noqa: E402
from entpruner.params.backbones import Architecture, Diffusion  # noqa: E402

HEAD = """# Examples

`python docs/examples.py` ran these commands, one after the other, and wrote this page. The models are tiny and have
random weights, so the numbers mean nothing; the words are those that you will read. `flux` is a `FluxPipeline` with
{blocks} blocks, `ours` a DiT of {depth} blocks in a folder of this package, and `photos` holds the folders `cat` and
`dog`.

`small.yaml` keeps the trainings short:

```yaml
{small}
```
"""
SMALL = """scoring: {draws: 8}
compute: {device: cpu}
"""
PIPELINE = (
    SMALL
    + """pipeline: {steps: 4, kept: 2, height: 16, width: 16}
recovery: {steps: 20, batch_size: 2}"""
)
OWN = (
    SMALL
    + """finetune: {steps: 8, batch_size: 4}
pruning: {stages: 2}
proxies: {ntk: {samples: 4}, zico: {batches: 8, batch_size: 2}}
sampling: {diffusion: {name: ddim, steps: 5}}"""
)
EXAMPLES = {
    "Score the blocks of a pipeline": "score flux prompts.txt --params small.yaml --out scores.json",
    "Remove a third of them, and let all weights recover":
        "prune flux prompts.txt --ratio 0.34 --recover full --params small.yaml --out smaller",
    "Prune a DiT on images, in stages by the vote": "prune ours photos --ratio 0.5 --params own.yaml --out pruned",
    "Draw samples, which prints nothing": "sample pruned/final --samples 4 --params own.yaml --out samples",
    "Write it for diffusers": "export pruned/final --to diffusers --out pruned-dit",
}  # fmt: skip
DEPTH, BLOCKS = 4, 6


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true")
    given = options.parse_args()
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        made(Path())
        found = HEAD.format(blocks=BLOCKS, depth=DEPTH, small=PIPELINE)
        found = found.replace("\n```\n", f"\n```\n\n`own.yaml` does it for `ours`:\n\n```yaml\n{OWN}\n```\n")
        found += "".join(f"\n## {title}\n\n```text\n{shown(line)}```\n" for title, line in EXAMPLES.items())
    if not given.check:
        PAGE.write_text(found)
    elif masked(found) != masked(PAGE.read_text()):
        before, after = (masked(page).splitlines() for page in (PAGE.read_text(), found))
        print(*difflib.unified_diff(before, after, "docs/examples.md", "what is printed now", lineterm=""), sep="\n")
        return 1
    return 0


def made(folder: Path) -> None:
    """A pipeline, a model of ours, prompts, photos and settings."""
    small_pipeline("FluxPipeline")[0].save_pretrained(folder / "flux")
    shape = Architecture(
        depth=DEPTH, hidden_size=16, num_heads=2, patch_size=4, input_size=8, in_channels=3, num_classes=2
    )
    model, random = Transformer(shape), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filter(lambda weight: weight.requires_grad, model.parameters()):
            parameter.normal_(std=0.1, generator=random)
    (folder / "ours").mkdir()
    names = ("cat", "dog")
    card = ModelCard(architecture=shape, kept_blocks=model.kept_blocks, process=Diffusion(), class_names=names)
    save_model(folder / "ours", model, card)
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    (folder / "small.yaml").write_text(PIPELINE)
    (folder / "own.yaml").write_text(OWN)
    for number in range(8):
        file = folder / f"photos/{names[number % 2]}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(file)


def shown(line: str) -> str:
    """A command, and what it prints. Raises RuntimeError if it fails."""
    printed = io.StringIO()
    logging.basicConfig(stream=printed, level=logging.INFO, format="%(message)s", force=True)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if entpruner(shlex.split(line)):
            raise RuntimeError(printed.getvalue())
    return f"$ entpruner {line}\n{printed.getvalue()}"


def masked(page: str) -> str:
    return re.sub(r"\d+\.\d+(e[-+]\d+)?|\d+e[-+]\d+|\w{3} \d\d:\d\d", "#", page)


if __name__ == "__main__":
    sys.exit(main())
