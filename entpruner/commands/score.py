"""Score every block of a network by one criterion."""

from pathlib import Path

from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import open_store
from entpruner.data.store import Images
from entpruner.layout import SCORES, TIMING
from entpruner.models.network import BlockNetwork
from entpruner.params.criteria import module_of
from entpruner.params.sampling import Sampling
from entpruner.process import Process, make_process
from entpruner.rules.rule import Seeded
from entpruner.rules.score import Ranking, ScoreSettings
from entpruner.scores import ScoreContext, Scores, score
from entpruner.system.devices import configure, device_of
from entpruner.system.files import whole_folder, write_json
from entpruner.system.recording import Recorder


def run(settings: ScoreSettings, *, store: Path, init: Path, out: Path) -> None:
    recorder = Recorder([__name__, module_of(settings.criterion)], settings, configure(settings.compute))
    data = open_store(store)
    model, card = model_for(data, init)
    scores = ranked(settings, settings, model, make_process(card.process), data.split("train"), settings.remove)
    with whole_folder(out) as folder:
        write_json(folder / SCORES, scores.to_json())
        write_json(folder / TIMING, recorder.record())


def ranked(
    how: Ranking, seeded: Seeded, model: BlockNetwork, process: Process, images: Images, remove: int | None
) -> Scores:
    """The scores of the blocks that ``model`` has, which is moved to the device.

    Seed, artefact and device are those of ``seeded``. ``remove`` is the number of blocks to remove, for the criteria
    that choose a set of that size.
    """
    device = device_of(seeded.compute)
    context = ScoreContext(
        model=model.to(device),
        process=process,
        images=images,
        settings=how.scoring,
        sampling=how.sampling or Sampling(),
        seed=seeded.seed,
        artefact=seeded.artefact,
        device=device,
        remove=remove,
    )
    return score(how.criterion, context)
