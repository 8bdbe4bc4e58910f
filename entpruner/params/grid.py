"""An ablation from the command line: an arm of a study with other values of some keys, one arm for each combination."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from entpruner.errors import UserError
from entpruner.params.arms import Override
from entpruner.params.base import merge
from entpruner.params.files import read_config, read_study
from entpruner.params.messages import got

Value = tuple[str, Any]
"""A key path and what it is set to."""


def grid_of(files: Sequence[Path], arm: str, given: Sequence[str]) -> str:
    """The text of an overlay with an arm for each combination of values, and a table that compares them with ``arm``.

    ``given`` has elements such as ``pruning.stages=1,2,4``. Raises UserError if there is no such arm, if an arm may not
    change one of the keys, or if a study with this overlay would be wrong.
    """
    study = read_study(files)
    if arm not in study.arms:
        raise UserError(f"--arm: {got(arm, ', '.join(study.arms), study.arms)}")
    base = study.arms[arm].model_dump(mode="json", exclude_unset=True)
    axes = [values_of(text) for text in given]
    arms: dict[str, Any] = {}
    for combination in product(*axes):
        said = [f"{key.rpartition('.')[2]} {value}" for key, value in combination]
        changed = base | {"label": f"{base['label']}: {', '.join(said)}"}
        for key, value in combination:
            section, _, rest = key.partition(".")
            changed = merge(changed, {"override": {section: nested(rest, value)}})
        arms[re.sub(r"\W", "_", "_".join([arm, *said]))] = changed
    table = {"caption": f"{base['label']} with other {', '.join(given)}", "arms": [arm, *arms]}
    overlay = {"arms": arms, "tables": {f"{arm}_grid": table}}
    text = yaml.safe_dump(overlay, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    read_config(overlay, files)
    return f"# An ablation, to lay over {', '.join(map(str, files))}.\n{text}"


def values_of(text: str) -> list[Value]:
    """The values that ``section.key=1,2`` gives a key."""
    key, _, values = text.partition("=")
    section, _, rest = key.partition(".")
    if section not in Override.model_fields or not rest or not values:
        allowed = f"SECTION.KEY=VALUE,VALUE with a section of {', '.join(Override.model_fields)}"
        raise UserError(f"--set: {got(text, allowed)}")
    try:
        return [(key, yaml.safe_load(value)) for value in values.split(",")]
    except yaml.YAMLError:
        raise UserError(f"--set: {got(text, 'values that are YAML, with commas between them')}") from None


def nested(path: str, value: Any) -> dict[str, Any]:
    """A mapping of mappings with a value at a key path."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}
