"""Score a pipeline's transformer, take blocks out of it, let it recover, and leave what stock diffusers loads.

``entpruner score`` and ``prune`` call ``score`` and ``prune`` for a pipeline and a file of prompts. A pipeline that is
given to ``score`` as an object may have any offloading of diffusers or accelerate on.
"""

import logging
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor

from entpruner.errors import UserError
from entpruner.layout import COMPARED_PICTURES, PIPELINE_TRANSFORMER, PRUNED, PRUNING, README, RECOVERY_STATE, SCORES
from entpruner.own_model import claim, missing, require_processes, to_do
from entpruner.params.criteria import CRITERIA
from entpruner.params.pipelines import OwnPipeline, Recovery
from entpruner.params.pruning import blocks_to_remove
from entpruner.pipelines import page
from entpruner.pipelines.blocks import require_known
from entpruner.pipelines.capture import Captured, CapturedContext, captured, embedded, samplings
from entpruner.pipelines.loading import folder_of, loaded
from entpruner.pipelines.needs import needed, seconds
from entpruner.pipelines.recovery import recover
from entpruner.pipelines.replay import Call, Denoiser
from entpruner.pipelines.surgery import empties, fixed, remove
from entpruner.scores import Scores
from entpruner.scores import score as importance
from entpruner.system import parallel
from entpruner.system.devices import configure
from entpruner.system.files import read_json, require_space, whole_folder, write_json

log = logging.getLogger(__name__)

By = Literal["blocks", "parameters"]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far outputs may lie apart that should be equal, as a share of the largest value: a loaded file's weights lie at
other places in memory, where the same products may be summed in another order."""


def score(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    criterion: str = "ced",
    ratio: float | None = None,
    settings: OwnPipeline | None = None,
) -> Scores:
    """The importance of every block of the pipeline's transformer. The block with the lowest one goes first.

    Criteria that choose a set need ``ratio``, the share of blocks to remove. The pipeline loses its text encoders when
    the prompts are embedded. Raises UserError for a criterion that needs images, and for a class that is refused.
    """
    settings = settings or OwnPipeline()
    require_known(pipeline.transformer)
    require_criterion(criterion, ratio)
    each = samplings(pipeline, prompts, settings, settings.scoring.draws)
    with embedded(pipeline, each):
        calls = captured(pipeline, each, settings.pipeline.kept, settings.scoring.draws, settings.seed)
    return importance(criterion, context(Denoiser(pipeline.transformer), calls, ratio, settings))


def prune(
    model: Path,
    prompts: Sequence[str],
    out: Path,
    ratio: float,
    criterion: str = "ced",
    by: By = "blocks",
    settings: OwnPipeline | None = None,
) -> Path:
    """Prune a pipeline in one step, recover what its transformer did, and return ``out``/final, a whole pipeline.

    ``by`` says what ``ratio`` is a share of. A killed run goes on when it is asked again. Before the result appears,
    its transformer is loaded from the disk and compared with the one in memory that skips the blocks. Of several
    processes, which share the recovery, the first alone scores and writes.

    Raises UserError for what cannot be pruned, a disk without room, a result that is not equal, and if there are not as
    many processes as ``settings.compute`` asks for.
    """
    settings = settings or OwnPipeline()
    require_criterion(criterion, ratio)
    require_peft(settings.recovery)
    folder = folder_of(model)
    asked = settings.model_dump(mode="json", exclude={"compute"})
    asked |= {"model": str(model), "prompts": list(prompts), "ratio": ratio, "criterion": criterion, "by": by}
    device, first = configure(settings.compute), parallel.is_first()
    require_processes(settings.compute)
    if first:
        claim(out, asked)
    final = out / PRUNED
    if not to_do(final, f"pruning {folder}"):
        return final
    require_space(out, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()), "the pruned pipeline")
    pipeline = loaded(folder, settings.pipeline.dtype, device)
    pool = max(settings.scoring.draws, settings.recovery.calls if settings.recovery.steps else 0)
    each = samplings(pipeline, prompts, settings, pool)
    with embedded(pipeline, each):
        calls = captured(pipeline, each, settings.pipeline.kept, pool, settings.seed)
        subject = Denoiser(pipeline.transformer)
        call = calls[0].call.to(device)
        needs = needed(subject, call, seconds(subject, call), ratio, settings)
        log.info(needs.told())
        require_space(out, needs.state, "the training's state")
        scores = kept_scores(out, criterion, context(subject, calls[: settings.scoring.draws], ratio, settings))
        drop = chosen(subject, scores, ratio, by)
        log.info("removing blocks %s of %d", " ".join(map(str, drop)), len(subject.units))
        pictures = page.pictures(pipeline, each, settings.seed) if first else []
        found = {"base_model": str(model), "criterion": criterion, "draws": scores.draws, "seed": settings.seed}
        found |= {"ratio": ratio, "ratio_of": by, "recovery": settings.recovery.model_dump(mode="json")}
        found |= page.before(subject, drop, calls)
        if settings.recovery.steps:
            prediction = context(subject, calls, ratio, settings).prediction
            recover(subject, drop, calls, prediction, settings, out / RECOVERY_STATE)
        if first:
            with whole_folder(final) as partial:
                cut(subject, drop, call, folder, partial)
                found |= page.after(Denoiser(subject.network), calls)
                write_json(partial / PRUNING, found)
                page.compare(pictures, page.pictures(pipeline, each, settings.seed), partial / COMPARED_PICTURES)
                (partial / README).write_text(page.card(found, final, bool(pictures)))
            (out / RECOVERY_STATE).unlink(missing_ok=True)
    parallel.wait()
    return final


# ------------------------------------------------------------------------------------------------------------ its steps


def require_criterion(criterion: str, ratio: float | None) -> None:
    if CRITERIA[criterion].needs_images:
        able = ", ".join(name for name, declared in CRITERIA.items() if not declared.needs_images)
        raise UserError(f"{criterion} needs images, and a pipeline is scored on prompts; choose one of {able}")
    if CRITERIA[criterion].sized and ratio is None:
        raise UserError(f"{criterion} chooses a set of blocks; give the ratio of blocks to remove (--ratio)")


def require_peft(recovery: Recovery) -> None:
    if recovery.steps and recovery.method == "lora" and find_spec("peft") is None:
        raise UserError(
            "recovery by adapters needs one more package; run: pip install entpruner[diffusers], or take --recover full"
        )


def context(
    subject: Denoiser, calls: Sequence[Captured], ratio: float | None, settings: OwnPipeline
) -> CapturedContext:
    return CapturedContext(
        model=subject,
        calls=calls,
        settings=settings.scoring.model_copy(update={"draws": len(calls)}),
        seed=settings.seed,
        artefact="scores",
        device=subject.network.device,
        remove=None if ratio is None else blocks_to_remove(len(subject.units), ratio),
    )


def kept_scores(out: Path, criterion: str, measured: CapturedContext) -> Scores:
    """The scores that ``out`` holds; if there are none yet, the first process computes them."""
    first, work = parallel.is_first(), f"scoring {len(measured.model.units)} blocks by {criterion}"
    if first and missing(out / SCORES, work):
        write_json(out / SCORES, importance(criterion, measured).to_json())
    return Scores.from_json(parallel.said_by_first(read_json(out / SCORES) if first else None))


def chosen(subject: Denoiser, scores: Scores, ratio: float, by: By) -> tuple[int, ...]:
    """The blocks to remove: those of the lowest value, or of the lowest value for each parameter.

    A block that must stay, and the last of a list, is passed over. Raises UserError if that leaves too few, or none.
    """
    sizes = [sum(weight.numel() for weight in block.parameters()) for block in subject.blocks]
    total = sum(weight.numel() for weight in subject.network.parameters())
    if by == "blocks":
        wanted, weights, order = blocks_to_remove(len(sizes), ratio), [1] * len(sizes), list(scores.order)
    else:
        value = dict(zip(scores.blocks, scores.value, strict=True))
        wanted, weights = round(ratio * total), sizes
        order = sorted(scores.blocks, key=lambda block: (value[block] / sizes[block], block))
    stay, gone = fixed(subject.network), 0
    drop: list[int] = []
    for block in order:
        if block in stay or empties(subject.network, [subject.units[other] for other in (*drop, block)]):
            continue
        if abs(gone + weights[block] - wanted) < abs(gone - wanted):  # it comes nearer to what is asked for
            drop.append(block)
            gone += weights[block]
    if not drop or (by == "blocks" and gone != wanted):
        raise UserError(
            f"ratio {ratio} asks for {wanted} {by} of {sum(weights) if by == 'blocks' else total}, and {gone} can go; "
            "give another ratio"
        )
    return tuple(sorted(drop))


def cut(subject: Denoiser, drop: tuple[int, ...], call: Call, source: Path, out: Path) -> None:
    """Remove the blocks and write the pipeline, whose other parts are copied from ``source``.

    Raises UserError if what the stock loader makes of the files is not what the network computed without the blocks.
    """
    expected = subject.without(call, *drop)
    remove(subject.network, [subject.units[block] for block in drop])
    for path in source.iterdir():
        if path.name in (PIPELINE_TRANSFORMER, README, ".cache"):
            continue
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, out / path.name)
    network: ModelMixin = subject.network
    network.save_pretrained(out / PIPELINE_TRANSFORMER)
    again = type(network).from_pretrained(out / PIPELINE_TRANSFORMER, dtype=network.dtype).to(network.device).eval()
    kept, found = network.state_dict(), again.state_dict()
    if kept.keys() != found.keys() or not all(torch.equal(kept[name], found[name]) for name in kept):
        raise UserError(
            f"{type(network).__name__}: the weights that stock diffusers loads are not those that were saved"
        )
    require_equal(Denoiser(again), call, expected)


@torch.no_grad()
def require_equal(again: Denoiser, call: object, expected: Tensor) -> None:
    apart = (again(call) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    if not float(apart) <= TOLERANCE.get(expected.dtype, 1e-4):
        raise UserError(
            f"{type(again.network).__name__} cannot be pruned so: what stock diffusers loads answers otherwise than "
            f"the network without the blocks (by {float(apart):.2g} of the largest value), so blocks depend on "
            "their positions; nothing was written"
        )
