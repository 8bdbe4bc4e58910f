"""A model and images of one's own, by the command line and by Python: what is left, what goes on, what is refused."""

import argparse
import contextlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import in_a_fork
from safetensors.torch import load_file, save_file

from entpruner.cli import main
from entpruner.cli.own_model import score as add_score
from entpruner.cli.own_model import settings as settings_of
from entpruner.data.class_folders import prepare_class_folders
from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.models.adapters import add_adapters
from entpruner.models.checkpoints import ModelCard, export_official, load_model, load_official, save_model
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.models.unet import UNet
from entpruner.own_model import Model, export, load, prune, sample, score
from entpruner.params.backbones import Architecture, Diffusion, Flow, UNetArchitecture
from entpruner.params.files import read_own_model
from entpruner.params.latents import KlAutoencoder
from entpruner.params.study import OwnModel
from entpruner.scores import Scores
from entpruner.system.files import read_json

ROOT = Path(__file__).parents[1]
ARCHITECTURE = Architecture(
    depth=4, hidden_size=16, num_heads=2, patch_size=4, input_size=8, in_channels=3, num_classes=5
)
PARAMS = """
scoring: {draws: 16, batch_size: 16}
adapt: {steps: 2, batch_size: 4}
finetune: {steps: 4, batch_size: 4, log_every: 1, checkpoint_every: 1}
pruning: {stages: 2}
proxies: {ntk: {samples: 4}, zico: {batches: 8, batch_size: 2}}
sampling: {samples: 4, batch_size: 4, flow: {name: euler, steps: 2}, diffusion: {name: ddim, steps: 2}}
compute: {device: cpu}
"""
OFFICIAL = ("--process", "flow", "--heads", "2")
pytestmark = pytest.mark.usefixtures("process_settings")


def network(architecture: Architecture = ARCHITECTURE, seed: int = 0) -> Transformer:
    """Random everywhere but in its fixed position table: at DiT's initialisation every block is the identity."""
    model, random = Transformer(architecture), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1, generator=random)
    return model


def card(model: Transformer, *names: str) -> ModelCard:
    return ModelCard(
        architecture=model.architecture,
        kept_blocks=model.kept_blocks,
        process=Flow(),
        class_names=names or tuple("abcde"),
    )


def draw(folder: Path, *files: str, size: tuple[int, int] = (11, 9)) -> Path:
    for index, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(folder / file)
    return folder


def outputs(model: Transformer, num_classes: int = ARCHITECTURE.num_classes) -> torch.Tensor:
    a, random = model.architecture, torch.Generator().manual_seed(1)
    x = torch.randn(2, a.in_channels, a.input_size, a.input_size, generator=random)
    with torch.no_grad():
        return model(x, torch.tensor([0.2, 0.7]), torch.tensor([1, num_classes]))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt (official), ours/ (of the photos' classes), photos/, my.yaml; and pruned/, made of it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my.yaml").write_text(PARAMS)
    draw(folder / "photos", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)))
    torch.save(network().state_dict(), folder / "model.pt")
    (folder / "ours").mkdir()
    ours = network(ARCHITECTURE.model_copy(update={"num_classes": 2}))
    save_model(folder / "ours", ours, card(ours, "cat", "dog"))
    assert entpruner(folder, "prune", "model.pt", "photos", "--ratio", "0.5", "--out", "pruned", *OFFICIAL) == 0
    return folder


def entpruner(folder: Path, command: str, *arguments: str) -> int:
    """In the folder, with its settings."""
    params = [] if command == "export" else ["--params", "my.yaml"]
    with contextlib.chdir(folder):
        return main([command, *arguments, *params])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("entpruner: ")
    return line.removeprefix("entpruner: ")


# --------------------------------------------------------------------------------------------------------- score, prune


def test_score_writes_what_the_api_returns(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entpruner(own, "score", "model.pt", "photos", "--out", "scores.json", *OFFICIAL) == 0
    written = Scores.from_json(read_json(own / "scores.json"))
    settings = read_own_model([own / "my.yaml"])
    assert written == score(load(own / "model.pt", "flow", 2), own / "photos", settings=settings)
    assert written.blocks == (0, 1, 2, 3) and min(written.value) > 0
    assert " ".join(map(str, written.order)) in capsys.readouterr().out


def test_a_model_that_knows_the_classes_is_shown_them_and_another_is_shown_none(own: Path) -> None:
    settings = read_own_model([own / "my.yaml"])
    known = score(load(own / "ours"), own / "photos", "sensitivity", settings=settings)
    unknown = score(load(own / "model.pt", "flow", 2), own / "photos", "sensitivity", settings=settings)
    assert known.per_class is not None and unknown.per_class is not None
    assert all(None not in block for block in known.per_class)
    assert all(None not in block[-1:] and set(block[:-1]) == {None} for block in unknown.per_class)
    with pytest.raises(UserError, match="learned trains, but the model does not know these classes"):
        score(load(own / "model.pt", "flow", 2), own / "photos", "learned", ratio=0.5, settings=settings)


def test_pruning_leaves_an_arms_folders_and_a_model_that_loads_in_one_call(own: Path) -> None:
    pruned = own / "pruned"
    folders = {"data", "start", "adapt", "scores", "stage1", "stage2", "final"}
    assert folders | {"asked.json"} == {path.name for path in pruned.iterdir()}
    model, its_card = load_model(pruned / "final")
    order = Scores.from_json(read_json(pruned / "scores/scores.json")).order
    assert its_card.kept_blocks == model.kept_blocks == tuple(sorted(order[2:]))
    assert its_card.class_names == ("cat", "dog") and its_card.source_sha256 is not None
    assert read_json(pruned / "final/timing.json")["total_steps"] == 4
    assert read_json(pruned / "stage1/decision.json")["how"] == "vote"


def test_a_killed_pruning_goes_on_to_the_same_bytes(own: Path, tmp_path: Path) -> None:
    """And with another key that changes no results."""
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    (tmp_path / "my.yaml").write_text(PARAMS.replace("compute: {", "compute: {gpu_memory: 80, "))
    wanted = (own / "pruned/final/model.safetensors").read_bytes()
    for folder in ("stage2", "final"):
        shutil.rmtree(tmp_path / "pruned" / folder)
    assert entpruner(tmp_path, "prune", "model.pt", "photos", "--ratio", "0.5", "--out", "pruned", *OFFICIAL) == 0
    assert (tmp_path / "pruned/final/model.safetensors").read_bytes() == wanted


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--ratio", "0.25"), "pruned: holds a pruning with another ratio; give another folder"),
        (("--ratio", "0.5", "--seed", "1", "--steps", "5"), "holds a pruning with another seed, finetune;"),
        (("--ratio", "0.5", "--out", "photos"), "photos: holds something else already; give a folder that is new"),
        (("--ratio", "0.1"), "ratio 0.1 removes 0 of 4 blocks; give one that removes 1 to 3"),
        (
            ("--ratio", "0.5", "--steps", "2"),
            "2 steps are too few for 2 stages in the first 50% of them; give 4 or more",
        ),
        (("--ratio", "0.5", "--steps", "-1"), "finetune.steps: got -1; allowed: a whole number at least 0"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_line_and_left_alone(
    own: Path, capsys: pytest.CaptureFixture[str], changed: tuple[str, ...], says: str
) -> None:
    before = (own / "pruned/asked.json").read_bytes()
    assert entpruner(own, "prune", "model.pt", "photos", "--out", "pruned", *changed, *OFFICIAL) == 1
    assert says in refused(capsys)
    assert {path.name for path in (own / "photos").iterdir()} == {"cat", "dog"}
    assert (own / "pruned/asked.json").read_bytes() == before


def test_a_pruned_model_of_the_images_classes_is_pruned_again_at_once(own: Path, tmp_path: Path) -> None:
    settings = read_own_model([own / "my.yaml"])
    again = prune(load(own / "pruned/final"), own / "pruned/data", tmp_path / "out", 0.5, "last", "one_shot", settings)
    assert again.card.kept_blocks == (0,) and again.network.architecture.depth == 2
    assert not (tmp_path / "out/adapt").exists() and not (tmp_path / "out/data").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("score", "model.pt", "photos", "--out", "other"), "say the process: diffusion, flow, flow-gvp"),
        (("score", "model.pt", "photos", "--out", "other", "--process", "dit"), "say the process, and dit is none: "),
        (("score", "model.pt", "photos", "--out", "other", "--process", "flow"), "give the number of heads (--heads)"),
        (("score", "ours", "photos", "--out", "photos"), "photos: a folder; give the name of a file to write"),
        (
            ("score", "ours", "photos", "--out", "other", "--criterion", "every_other"),
            "every_other chooses a set of blocks; give",
        ),
        (("score", "ours", "photos", "--out", "other", "--ratio", "1.5"), "ratio 1.5 removes 6 of 4 blocks"),
        (("sample", "ours", "--out", "photos"), "photos: is there already; give another folder, or remove it"),
        (("score", "photos", "photos", "--out", "other"), "model.json: no such file"),
        (("sample", "nowhere", "--out", "other", "--samples", "0"), "sampling.samples: got 0; allowed: a whole number"),
        (("score", "nowhere.pt", "photos", "--out", "other", *OFFICIAL), "no such file, or not readable"),
        (("score", "model.pt", "nowhere", "--out", "other", *OFFICIAL), "nowhere: no such file or folder"),
        (("sample", "ours", "--out", "other", "--classes", "cow"), "class cow: the model has 2, cat to dog"),
        (("sample", "ours", "--out", "other", "--classes", "2"), "class 2: the model has 2"),
    ],
)
def test_bad_input_is_one_line(
    own: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert entpruner(own, *arguments) == 1
    assert says in refused(capsys)
    assert not (own / "other").exists()


def test_ctrl_c_is_one_line_and_keeps_what_is_finished(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("entpruner.commands.score.run", interrupt)
    assert entpruner(own, "prune", "ours", "photos", "--ratio", "0.5", "--out", "stopped") == 130
    assert refused(capsys).startswith("interrupted; what is finished stays")
    assert {path.name for path in (own / "stopped").iterdir()} == {"asked.json", "data", "start"}


def test_a_gpu_without_enough_memory_is_one_line(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    monkeypatch.setattr("entpruner.own_model.sample_images", fail)
    assert entpruner(own, "sample", "ours", "--out", "images") == 1
    said = refused(capsys)
    assert said.startswith("sample: the GPU has too little memory (3.00 GiB more were asked for): lower sampling.batch")


def test_several_processes_share_the_trainings_of_a_pruning(own: Path, tmp_path: Path) -> None:
    """The same decisions and, to rounding, the same weights; and one process goes on where two were broken off."""
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    two = (own / "my.yaml").read_text().replace("compute: {", "compute: {gpus: 2, ")
    assert "gpus: 2" in two
    (tmp_path / "two.yaml").write_text(two)
    command = ["prune", "model.pt", "photos", "--ratio", "0.5", "--out", "shared", *OFFICIAL, "--params"]
    with contextlib.chdir(tmp_path):
        assert in_a_fork(lambda: sys.exit(main([*command, "two.yaml"]))) == 0
    for stage in ("stage1", "stage2"):
        one, shared = (read_json(tmp_path / out / stage / "decision.json") for out in ("pruned", "shared"))
        assert shared["dropped"] == one["dropped"] and shared["kept_blocks"] == one["kept_blocks"]
    before = load_model(tmp_path / "shared/final")[0].state_dict()
    for name, weight in load_model(own / "pruned/final")[0].state_dict().items():
        torch.testing.assert_close(before[name], weight, rtol=1e-3, atol=1e-5)
    shutil.rmtree(tmp_path / "shared/final")
    assert entpruner(tmp_path, *command[:-1]) == 0
    for name, weight in load_model(tmp_path / "shared/final")[0].state_dict().items():
        torch.testing.assert_close(before[name], weight, rtol=1e-3, atol=1e-5)


def test_processes_that_nobody_started_are_asked_for_in_vain(own: Path, tmp_path: Path) -> None:
    settings = read_own_model([own / "my.yaml"], {"compute": {"gpus": 2}})
    with pytest.raises(UserError, match="compute asks for 2 processes, and this is one of 1; run the command"):
        prune(load(own / "ours"), own / "photos", tmp_path / "out", 0.5, settings=settings)
    assert not (tmp_path / "out").exists()
    assert score(load(own / "ours"), own / "photos", settings=settings).order  # one process scores


# ------------------------------------------------------------------------------------------------------- sample, export


def test_samples_are_pictures_of_the_classes_asked_for_in_turn(own: Path) -> None:
    assert entpruner(own, "sample", "ours", "--out", "samples", "--classes", "dog", "0", "--samples", "3") == 0
    files = sorted(path.name for path in (own / "samples").iterdir())
    assert files == ["00000-class1.png", "00001-class0.png", "00002-class1.png", "grid.png"]
    settings = read_own_model([own / "my.yaml"], {"sampling": {"samples": 3}})
    images, labels = sample(load(own / "ours"), ["dog", 0], settings)
    assert labels.tolist() == [1, 0, 1]
    assert Image.open(own / "samples/grid.png").size == (2 * 32, 2 * 32)  # of images of 8 pixels, each shown at 32
    assert np.array_equal(np.asarray(Image.open(own / "samples/00001-class0.png")), images[1].transpose(1, 2, 0))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_an_exported_model_is_an_official_file_of_fewer_blocks(tmp_path: Path, suffix: str) -> None:
    pruned = drop_blocks(network(), {1, 2})
    path = tmp_path / f"pruned{suffix}"
    export(Model(pruned, card(pruned)), path)
    weights = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert {key.split(".")[1] for key in weights if key.startswith("blocks.")} == {"0", "1"}
    again = load_official(path, ARCHITECTURE.model_copy(update={"depth": 2}))
    assert torch.equal(outputs(again), outputs(pruned))
    loaded = load(path, "diffusion", num_heads=2)
    assert (loaded.card.kept_blocks, loaded.card.process) == ((0, 1), Diffusion())


@pytest.mark.parametrize("name", ["dit", "sit"])
def test_an_exported_model_computes_what_the_official_code_does_without_the_block(
    pytestconfig: pytest.Config, tmp_path: Path, name: str
) -> None:
    goldens = pytestconfig.getoption("goldens")
    config = json.loads((goldens / "config.json").read_text())
    official = load(goldens / f"{name}.safetensors", "flow", config["heads"])
    with np.load(goldens / "golden.npz", allow_pickle=False) as file:
        golden = {key: torch.from_numpy(np.asarray(file[key])) for key in file}
    t = golden["t_diffusion"] if name == "dit" else golden["t_flow"]
    for block, expected in enumerate(golden[f"{name}/out_without_block"]):
        export_official(tmp_path / "pruned.pt", drop_blocks(official.network, {block}))
        pruned = load(tmp_path / "pruned.pt", "flow", config["heads"]).network
        with torch.no_grad():
            output = pruned(golden["x"], t, golden["y"])[:, : expected.shape[1]]
        assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_the_official_code_has_no_names_for_is_not_exported(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(UserError, match=r"pruned.bin: an official file is a \.pt"):
        export(Model(model, card(model)), tmp_path / "pruned.bin")
    add_adapters(model, 2)
    with pytest.raises(UserError, match="the model has adapters"):
        export(Model(model, card(model)), tmp_path / "pruned.pt")
    unet = UNet(UNetArchitecture(channels=8, blocks_per_level=1, input_size=4, in_channels=1, num_classes=3))
    with pytest.raises(UserError, match="a U-Net; give a DiT or SiT"):
        export_official(tmp_path / "pruned.pt", unet)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- latents


def test_a_model_that_works_on_latents_takes_images_and_gives_images(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the official models do: four channels, and an autoencoder that makes them of images."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    stages = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
    stages |= {f"num_{part}_blocks": (1, 1) for part in ("encoder", "decoder")}
    AutoencoderTiny(**stages).save_pretrained(tmp_path / "vae")
    latents = network(ARCHITECTURE.model_copy(update={"in_channels": 4}))
    torch.save(latents.state_dict(), tmp_path / "model.pt")
    shutil.copytree(own / "photos", tmp_path / "photos")
    (tmp_path / "my.yaml").write_text(PARAMS)
    assert entpruner(tmp_path, "score", "model.pt", "photos", "--out", "scores.json", *OFFICIAL) == 1
    assert "the model works on 4 channels: on latents, not on images; say whose (--vae" in refused(capsys)
    assert entpruner(tmp_path, "sample", "model.pt", "--out", "samples", *OFFICIAL) == 1
    assert "the model works on 4 channels: on latents, not on images; say whose (--vae" in refused(capsys)

    (tmp_path / "my.yaml").write_text(
        PARAMS + "latents: {kind: tiny, folder: vae, factor: 2, shards: 2, batch_size: 4}\n"
    )
    assert entpruner(tmp_path, "score", "model.pt", "photos", "--out", "scores.json", *OFFICIAL) == 0
    assert entpruner(tmp_path, "prune", "model.pt", "photos", "--ratio", "0.5", "--out", "pruned", *OFFICIAL) == 0
    assert {"autoencoder", "latents", "data", "final"} < {path.name for path in (tmp_path / "pruned").iterdir()}
    assert entpruner(tmp_path, "sample", "pruned/final", "--out", "samples", "--classes", "cat") == 0
    assert np.asarray(Image.open(tmp_path / "samples/00000-class0.png")).shape == (16, 16, 3)


def test_an_autoencoder_that_does_not_fit_is_refused_by_the_name_that_was_given(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is encoded; and not by the name of our copy."""
    from diffusers import AutoencoderKL

    blocks = {"block_out_channels": (4,) * 4, "norm_num_groups": 4, "latent_channels": 16}
    blocks |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    AutoencoderKL(**blocks).save_pretrained(tmp_path / "vae")
    latents = network(ARCHITECTURE.model_copy(update={"in_channels": 4}))
    torch.save(latents.state_dict(), tmp_path / "model.pt")
    (tmp_path / "my.yaml").write_text(PARAMS)
    shutil.copytree(own / "photos", tmp_path / "photos")
    for model, says in (
        (own / "ours", "the model works on 3 channels, latents of vae have 4; take another autoencoder, or none"),
        (Path("model.pt"), "vae: its latent channels is 16, the settings say 4; take another"),
    ):
        given = ("--out", "other", "--vae", "vae", *OFFICIAL)
        assert entpruner(tmp_path, "score", str(model), "photos", *given) == 1
        assert refused(capsys).startswith(says)
        assert entpruner(tmp_path, "sample", str(model), *given) == 1
        assert refused(capsys).startswith(says)


@pytest.mark.parametrize(
    ("given", "place"),
    [("vae", {"folder": "vae"}), ("a/vae", {"hub": "a/vae"}), ("none", {"folder": "none"}), ("./a", {"folder": "./a"})],
)
def test_an_autoencoder_is_a_folder_or_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, place: dict[str, str]
) -> None:
    (tmp_path / "vae").mkdir()
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_score(parser)
    options = parser.parse_args(["model.pt", "photos", "--out", "scores.json", "--vae", given])
    assert settings_of(options).latents == KlAutoencoder(kind="kl", **place)


# --------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("channels", [1, 3])
def test_class_folders_become_a_store(tmp_path: Path, channels: int) -> None:
    draw(tmp_path / "photos", "b/2.png", "a/1.png", "b/1.PNG", "a/.hidden.png", size=(8, 8))
    (tmp_path / "photos/a/notes.txt").touch()
    prepare_class_folders(tmp_path / "photos", tmp_path / "store", 8, channels)
    store = Store.open(tmp_path / "store", verify=True)
    assert (store.class_names, store.labels.tolist()) == (("a", "b"), [0, 1, 1])
    mode = "L" if channels == 1 else "RGB"
    for file, row in (("a/1.png", 0), ("b/1.PNG", 1), ("b/2.png", 2)):
        pixels = np.asarray(Image.open(tmp_path / "photos" / file).convert(mode)).reshape(8, 8, channels)
        assert np.array_equal(store.split("train").images[row].transpose(1, 2, 0), pixels)


def test_images_in_no_folder_are_one_class_and_archives_will_do(tmp_path: Path) -> None:
    draw(tmp_path / "photos", "2.png", "1.png")
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    for source in ("photos", "photos.zip"):
        prepare_class_folders(tmp_path / source, tmp_path / "store", 4, 3)
        store = Store.open(tmp_path / "store")
        assert (store.class_names, store.manifest.shape, len(store.labels)) == (("images",), (3, 4, 4), 2)


@pytest.mark.parametrize(
    ("files", "channels", "says"),
    [
        ((), 3, "no .jpg or .png"),
        (("train/cat/1.png",), 3, "in it or its folders, only deeper, as 'train/cat/1.png'; give a folder of <class>"),
        (("1.png", "cat/1.png"), 3, "images in folders and beside them"),
    ],
)
def test_images_that_make_no_store(tmp_path: Path, files: tuple[str, ...], channels: int, says: str) -> None:
    (tmp_path / "photos").mkdir()
    draw(tmp_path / "photos", *files)
    with pytest.raises(UserError, match=says):
        prepare_class_folders(tmp_path / "photos", tmp_path / "store", 4, channels)
    assert not (tmp_path / "store").exists()


def test_a_store_of_other_images_than_the_model_takes(tmp_path: Path) -> None:
    prepare_class_folders(draw(tmp_path / "photos", "a/1.png"), tmp_path / "store", 4, 3)
    with pytest.raises(UserError, match=r"images of \(3, 4, 4\), the model takes \(3, 8, 8\)"):
        score(Model(network(), card(network())), tmp_path / "store")


# ------------------------------------------------------------------------------------------------------------- settings


def test_options_lie_over_a_params_file_and_that_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("finetune: {steps: 7, learning_rate: 0.01}\n")
    found = read_own_model([file], {"finetune": {"steps": 9}})
    expected = OwnModel().finetune.model_copy(update={"steps": 9, "learning_rate": 0.01})
    assert found == OwnModel().model_copy(update={"finetune": expected})
    file.write_text("finetune: {stesp: 7}\narms: {}\n")
    with pytest.raises(UserError) as caught:
        read_own_model([file])
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith(f"{file}: arms: got an unknown key")
    assert first != second and second.endswith("did you mean 'steps'?")


@pytest.fixture
def visited(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with model.pt, of a width that DiT has, photos/ and my.yaml."""
    small = Architecture(
        depth=2, hidden_size=384, num_heads=6, patch_size=4, input_size=4, in_channels=3, num_classes=3
    )
    save_file(network(small).state_dict(), tmp_path / "weights.safetensors")
    torch.save(load_file(tmp_path / "weights.safetensors"), tmp_path / "model.pt")
    shutil.copytree(own / "photos", tmp_path / "photos")
    (tmp_path / "my.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_in_the_readme_run(visited: Path) -> None:
    section = (ROOT / "README.md").read_text().split("## Prune your own model")[1].split("\n## ")[0]
    commands = re.findall(r"^    entpruner (.*)$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["score", "prune", "sample"]
    for command in commands:
        assert entpruner(visited, *command.split()) == 0
    assert (visited / "scores.json").exists() and len(list((visited / "samples").iterdir())) == 9


def test_the_lines_of_python_in_the_documentation_run(visited: Path) -> None:
    page = (ROOT / "docs/howto/own-model.md").read_text()
    lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    found: dict[str, object] = {}
    exec(lines, found)  # what a reader would run
    assert np.shape(found["images"]) == (4, 3, 4, 4)
    assert load("pruned.pt", "flow").card.kept_blocks == (0,)
    assert 8 <= len(lines.strip().splitlines()) <= 12
