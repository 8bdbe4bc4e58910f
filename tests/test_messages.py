"""What a user reads about a faulty params file: word for word, one line a fault, as ``messages.yaml`` lists them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from entpruner.errors import UserError
from entpruner.params.base import merge
from entpruner.params.files import read_own_model, read_study

SOUND, FAULTY = yaml.safe_load_all(Path(__file__).with_name("messages.yaml").read_text())


def laid_over(config: dict[str, Any], key_path: str, value: Any) -> dict[str, Any]:
    for key in reversed(key_path.split(".")):
        value = {key: value}
    return merge(config, value)


def without(config: dict[str, Any], key_path: str) -> dict[str, Any]:
    key, _, rest = key_path.partition(".")
    inner = {key: without(config[key], rest)} if rest else {}
    return {name: value for name, value in config.items() if name != key} | inner


def said(sound: dict[str, Any], faults: dict[str, Any]) -> list[str]:
    """What is said of the sound study with faults in it, without the name of its file, study.yaml."""
    texts = {Path(key): text for key, text in faults.items() if key.endswith(".yaml")}
    config = faults.get("own_model") or sound
    for key_path in faults.keys() - {*map(str, texts), "own_model", "without", "says"}:
        config = laid_over(config, key_path, faults[key_path])
    for key_path in faults.get("without", ()):
        config = without(config, key_path)
    texts = {Path("study.yaml"): yaml.safe_dump(config, sort_keys=False), **texts}
    for path, text in texts.items():
        if text is not None:
            path.write_text(text)
    with pytest.raises(UserError) as caught:
        (read_own_model if "own_model" in faults else read_study)(list(texts))
    return [line.removeprefix("study.yaml: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("faults", FAULTY, ids=lambda faults: next(iter(faults)))
def test_each_fault_is_one_line(faults: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sorted(said(SOUND, faults)) == sorted(faults["says"].splitlines())
