"""The network right after an arm's last cut, before any training on it: what recovery had to make up for."""

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
    """``inits`` are the folders of the models that the arm's stages began with, ``decisions`` their decision.json.

    Stages may decide to drop nothing: the last that did drop blocks is the one. Its blocks are dropped from the
    averaged weights, which are also what is sampled from after recovery.
    """
    recorder = Recorder([__name__], settings, configure(settings.compute))
    dropped = [read_json(decision)["dropped"] for decision in decisions]
    last = max(stage for stage, blocks in enumerate(dropped) if blocks)  # an arm's ratio removes a block or more
    model, card = load_model(inits[last])
    model = drop_blocks(model, dropped[last])
    with whole_folder(out) as folder:
        save_model(folder, model, card.model_copy(update={"kept_blocks": model.kept_blocks}))
        write_json(folder / TIMING, recorder.record(stage=last + 1))
