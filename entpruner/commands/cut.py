"""Take the network right after an arm's last cut, before any training on it. Recovery has to make up for this cut."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.layout import TIMING
from entpruner.models.checkpoints import load_model, save_model
from entpruner.models.surgery import drop_blocks
from entpruner.rules.evaluate import CutSettings
from entpruner.system.devices import configure
from entpruner.system.files import read_json, whole_folder, write_json
from entpruner.system.recording import Recorder


def run(settings: CutSettings, *, inits: Sequence[Path], decisions: Sequence[Path], out: Path) -> None:
    """``inits`` are the folders of the models that the arm's stages began with, ``decisions`` are their decision.json.

    A stage may drop nothing, so the last cut is that of the last stage that dropped blocks. They are dropped from the
    averaged weights, because samples come from the averaged weights after recovery too.
    """
    recorder = Recorder([__name__], settings, configure(settings.compute))
    dropped = [read_json(decision)["dropped"] for decision in decisions]
    last = max(stage for stage, blocks in enumerate(dropped) if blocks)  # every pruned arm removes a block or more
    model, card = load_model(inits[last])
    model = drop_blocks(model, dropped[last])
    with whole_folder(out) as folder:
        save_model(folder, model, card.model_copy(update={"kept_blocks": model.kept_blocks}))
        write_json(folder / TIMING, recorder.record(stage=last + 1))
