"""DiT by the names of diffusers: the same numbers, the same outputs, and back to the same bits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from refusals import refused
from torch import Tensor

from entpruner.cli import main
from entpruner.models.adapters import add_adapters
from entpruner.models.checkpoints import ModelCard, save_model, unnamed_classes
from entpruner.models.diffusers_names import TIME_FIX, load_diffusers, save_diffusers
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.own_model import Model, export_diffusers, load, score
from entpruner.params.backbones import Architecture, Diffusion, Flow
from entpruner.params.latents import KlAutoencoder
from entpruner.params.scoring import Scoring
from entpruner.params.study import OwnModel

ARCHITECTURE = Architecture(
    depth=3, hidden_size=32, num_heads=4, patch_size=2, input_size=8, in_channels=4, num_classes=3
)
pytestmark = pytest.mark.usefixtures("process_settings")


def network(**changes: Any) -> Transformer:
    """Random everywhere but in its position table, so that no block is the identity."""
    model, random = Transformer(ARCHITECTURE.model_copy(update=changes)).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.15, generator=random)
    return model


def card(model: Transformer, process: Any = None) -> ModelCard:
    names = ("cat", "dog", *unnamed_classes(model.null_class)[2:])
    return ModelCard(architecture=model.architecture, kept_blocks=model.kept_blocks, class_names=names,
                     process=process or Diffusion())  # fmt: skip


def saved(folder: Path, model: Transformer) -> Path:
    folder.mkdir()
    save_diffusers(folder, model, card(model))
    return folder


def loaded(folder: Path, as_dit: bool = True) -> DiTTransformer2DModel:
    """By stock diffusers, with the two lines for users or without them."""
    transformer = DiTTransformer2DModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    if as_dit:
        exec(TIME_FIX.replace("pipeline.transformer", "transformer"))
    return transformer


def apart(theirs: DiTTransformer2DModel, ours: Transformer) -> float:
    """The largest difference of outputs, for known classes and for "no class", relative to the largest output."""
    a, random = ours.architecture, torch.Generator().manual_seed(1)
    x = torch.randn(5, a.in_channels, a.input_size, a.input_size, generator=random)
    t, y = torch.tensor([0, 1, 500, 731, 999]), torch.tensor([0, a.num_classes - 1, 1, a.num_classes, a.num_classes])
    with torch.no_grad():
        wanted = ours(x, t, y)
        found = theirs(x, timestep=t, class_labels=torch.where(y == a.num_classes, 1000, y)).sample
    assert found.shape == wanted.shape == (5, 2 * a.in_channels, a.input_size, a.input_size)
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_classes": 1000}, {"patch_size": 4, "in_channels": 1}, {"hidden_size": 48, "num_heads": 2, "depth": 1}],
)
def test_diffusers_computes_the_same_with_dit_s_frequencies_of_time(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = network(**changes)
    folder = saved(tmp_path / "dit", model)
    assert apart(loaded(folder), model) <= 1e-5
    assert apart(loaded(folder, as_dit=False), model) > 1e-3  # if this fails, diffusers has come nearer to DiT


@pytest.mark.parametrize("gone", [{0}, {1, 2}])
def test_a_pruned_network_without_any_block_is_a_pruned_network_there(tmp_path: Path, gone: set[int]) -> None:
    """Block 0, too, though diffusers' head reads its embedder."""
    pruned = drop_blocks(network(), gone)
    assert apart(loaded(saved(tmp_path / "dit", pruned)), pruned) <= 1e-5


@pytest.mark.parametrize("changes", [{}, {"num_classes": 1000}])
def test_there_and_back_are_the_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = network(**changes)
    again, its_card = load_diffusers(saved(tmp_path / "dit", model))
    assert its_card.architecture == model.architecture and its_card.process == Diffusion()
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def diffusers_own(shared: bool = True) -> DiTTransformer2DModel:
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "out_channels": 8, "sample_size": 8}
    model = DiTTransformer2DModel(**sizes, norm_num_groups=4, norm_eps=1e-6).eval()
    if shared:
        model.transformer_blocks[1].norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


def test_back_and_there_are_the_same_bits(tmp_path: Path) -> None:
    model = diffusers_own()
    model.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert isinstance(ours.network, Transformer)
    again = loaded(saved(tmp_path / "again", ours.network))
    assert apart(again, ours.network) <= 1e-5
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_embedders_that_were_trained_apart_have_no_place_in_dit(tmp_path: Path) -> None:
    diffusers_own(shared=False).save_pretrained(tmp_path / "dit")
    with refused(f"{tmp_path / 'dit'}: the embedder of block 1 differs from that of block 0", "as a pipeline"):
        load(tmp_path / "dit")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"norm_type": "layer_norm"}, "norm_type layer_norm: no DiT"),
        ({"_class_name": "PixArtTransformer2DModel"}, "PixArtTransformer2DModel: no DiT"),
        ({"out_channels": 4}, "DiTTransformer2DModel: no DiT that predicts noise and variance"),
        ({"num_layers": 3}, "transformer_blocks.2."),
    ],
)
def test_what_is_no_dit_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    diffusers_own().save_pretrained(tmp_path / "dit")
    file = tmp_path / "dit/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with refused(f"{tmp_path / 'dit'}: {says}"):
        load(tmp_path / "dit")


def test_what_diffusers_has_no_place_for_is_refused(tmp_path: Path) -> None:
    model = network()
    with refused("a SiT: diffusers has no pipeline for it"):
        export_diffusers(Model(model, card(model, Flow())), tmp_path / "out")
    wide, many, adapted = network(mlp_ratio=2.0), network(num_classes=1001), network()
    add_adapters(adapted, 2)
    for other, says in ((wide, "an MLP of 2 times"), (many, "1001 classes: "), (adapted, "the model has adapters")):
        with refused(says):
            export_diffusers(Model(other, card(other)), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with refused(f"{tmp_path / 'out'}: is there already"):
        export_diffusers(Model(model, card(model)), tmp_path / "out")


# -------------------------------------------------------------------------------------------------------- the commands

ELSEWHERE = """if True:
    import sys
    sys.modules["entpruner"] = None  # importing it fails from here on
    import torch
    from diffusers import DiTPipeline
    pipeline = DiTPipeline.from_pretrained("pipeline", low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    exec(sys.argv[1])
    numbers = pipeline.get_label_ids(["dog", "cat"])
    random = torch.Generator().manual_seed(0)
    images = pipeline(numbers, guidance_scale=3.0, num_inference_steps=3, generator=random, output_type="np").images
    torch.save((numbers, torch.from_numpy(images)), "images.pt")
"""


def test_a_pruned_dit_runs_in_the_stock_pipeline_as_it_does_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With guidance: diffusers' sampler calls our network, and diffusers' network, from the same noise."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    levels = {"block_out_channels": (4, 4), "norm_num_groups": 4, "latent_channels": 4}
    levels |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(**levels).save_pretrained("vae")
    pruned = drop_blocks(network(), {0})
    Path("final").mkdir()
    save_model(Path("final"), pruned, card(pruned))
    (Path("my.yaml")).write_text("latents: {kind: kl, folder: vae, factor: 2, scale: 0.3}\n")
    export = ["export", "final", "--to", "diffusers", "--out"]
    assert main([*export, "transformer"]) == 0
    assert apart(loaded(Path("transformer")), pruned) <= 1e-5
    settings = OwnModel(latents=KlAutoencoder(kind="kl", folder="vae", factor=2, scale=0.3))
    export_diffusers(load("final"), "pipeline", settings)
    shown = capsys.readouterr().out
    assert "depth=2, num_classes=3" in shown and "for block in transformer.transformer_blocks:" in shown

    subprocess.run([sys.executable, "-W", "ignore", "-c", ELSEWHERE, TIME_FIX], check=True, cwd=tmp_path)
    numbers, images = torch.load("images.pt", weights_only=True)
    assert numbers == [1, 0]
    vae, scheduler = AutoencoderKL.from_pretrained("vae", low_cpu_mem_usage=False), DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(3)
    scheduler.alphas_cumprod = (1 - torch.linspace(1e-4, 2e-2, 1000)).cumprod(0)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for t in scheduler.timesteps:
            both = pruned(torch.cat([x, x]), t.expand(4), torch.tensor([1, 0, 3, 3]))[:, :4]
            known, none = both.chunk(2)
            x = scheduler.step(none + 3 * (known - none), t, x).prev_sample
        expected: Tensor = (vae.decode(x / 0.3).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)

    again = load("pipeline")
    assert again.card.class_names == ("cat", "dog", "class 2")
    assert json.loads(Path("pipeline/model_index.json").read_text())["_class_name"] == DiTPipeline.__name__


def test_a_dit_of_diffusers_is_scored_on_images_as_ours_is(tmp_path: Path) -> None:
    """One ``load`` for both; and a folder of images in place of prompts."""
    import numpy as np
    from PIL import Image

    model = network(in_channels=1, num_classes=2)
    saved(tmp_path / "dit", model)
    (tmp_path / "ours").mkdir()
    save_model(tmp_path / "ours", model, card(model).model_copy(update={"class_names": unnamed_classes(2)}))
    for number in range(4):
        (tmp_path / f"photos/{number % 2}").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"photos/{number % 2}/{number}.png")
    settings = OwnModel(scoring=Scoring(draws=8, batch_size=8))
    scores = [score(load(tmp_path / name), tmp_path / "photos", settings=settings) for name in ("ours", "dit")]
    assert scores[0] == scores[1]
    (tmp_path / "my.yaml").write_text("scoring: {draws: 8, batch_size: 8}\n")
    words = ["score", str(tmp_path / "dit"), str(tmp_path / "photos"), "--params", str(tmp_path / "my.yaml")]
    assert main([*words, "--out", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["value"] == list(scores[0].value)


def test_an_autoencoder_is_for_a_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--vae", "x", "--out", str(tmp_path / "a.pt")]) == 1
    assert "--vae: an official file has no autoencoder" in capsys.readouterr().err
