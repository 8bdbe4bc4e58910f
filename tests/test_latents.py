"""Latents: batches of them, how they are encoded and gathered, what survives a kill or a full disk, and bad input."""

import ast
import errno
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scoring_context import context
from test_commands import COMPUTE, TRAINING, entpruner
from torch.utils.flop_counter import FlopCounterMode

from entpruner.data import rows
from entpruner.data.autoencoder import Codec, fetch_autoencoder, load_autoencoder
from entpruner.data.encoding import encode_shard, gather_latents
from entpruner.data.latent_store import LatentStore, open_store
from entpruner.data.rows import RowFile
from entpruner.data.store import ImageSet, LatentSet, Store
from entpruner.data.writing import write_store
from entpruner.errors import UserError
from entpruner.evaluation.cost import parameters
from entpruner.layout import CHECKSUMS
from entpruner.layout import CODEC_WEIGHTS as WEIGHTS
from entpruner.params.latents import KlAutoencoder, TinyAutoencoder
from entpruner.sizes.nets import AUTOENCODER_MACS, AUTOENCODER_PARAMETERS
from entpruner.system.files import read_json, sha256_of, write_json

CPU = torch.device("cpu")
SIDE, FACTOR, COUNT = 16, 2, 10


class Case(NamedTuple):
    store: Store
    kl: Path
    tiny: Path


def settings(at: Path | str, kind: str = "kl", **changes: Any) -> KlAutoencoder | TinyAutoencoder:
    of = KlAutoencoder if kind == "kl" else TinyAutoencoder
    return of(**{"kind": kind, "folder": str(at), "factor": FACTOR, "batch_size": 2, "shards": 2} | changes)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A store of ten random images, and one autoencoder of each kind with random weights."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    root = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    levels = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    AutoencoderKL(**levels, layers_per_block=1, norm_num_groups=4).save_pretrained(root / "kl")
    stages = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
    stages |= {f"num_{part}_blocks": (1, 1) for part in ("encoder", "decoder")}
    AutoencoderTiny(**stages).save_pretrained(root / "tiny")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(COUNT) % 2
    splits = {"train": (images[:7], labels[:7]), "test": (images[7:], labels[7:])}
    write_store(root / "store", splits, ["wren", "robin"], {"source": "random"})
    return Case(Store.open(root / "store"), root / "kl", root / "tiny")


def encoded(case: Case, root: Path, how: KlAutoencoder | TinyAutoencoder) -> LatentStore:
    codec = load_autoencoder(Path(how.folder or ""), how, CPU)
    for shard in range(how.shards):
        encode_shard(case.store, codec, shard, root / "parts")
    return gathered(case, root, how)


def gathered(case: Case, root: Path, how: KlAutoencoder | TinyAutoencoder) -> LatentStore:
    markers = [root / f"parts/{shard}.json" for shard in range(how.shards)]
    gather_latents(case.store, how, sha256_of(Path(how.folder or "") / WEIGHTS), markers, root / "latents")
    return LatentStore.open(root / "latents", verify=True)


# ------------------------------------------------------------------------------------------------------------ batches


def known_set(n: int = 1000) -> LatentSet:
    """Image i has mean i / n and deviation 0.5; its mirror image the negative mean and no deviation."""
    mean = np.broadcast_to(np.arange(n).reshape(n, 1, 1, 1, 1) / n, (n, 1, 4, 2, 2))
    std = np.full((n, 1, 4, 2, 2), 0.5)
    moments = np.concatenate([np.concatenate([mean, std], 2), np.concatenate([-mean, 0 * std], 2)], 1)
    return LatentSet(moments.astype(np.float16), np.arange(n) % 3, 3, (4, 2, 2), scale=0.1)


def test_a_batch_is_a_scaled_draw_from_the_posterior() -> None:
    rows = torch.arange(1000)
    x, y = known_set().batch(rows, torch.Generator().manual_seed(0))
    assert x.shape == (1000, *known_set().shape) and x.dtype == torch.float32
    assert torch.equal(y, rows % 3)
    noise = (x / 0.1 - (rows / 1000).view(-1, 1, 1, 1)) / 0.5
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
    again, _ = known_set().batch(rows, torch.Generator().manual_seed(0))
    other, _ = known_set().batch(rows, torch.Generator().manual_seed(1))
    assert torch.equal(again, x) and not torch.equal(other, x)


def test_a_mirrored_image_has_the_latents_of_its_mirror_image() -> None:
    rows, mirrored = torch.tensor([500, 500, 250]), torch.tensor([False, True, True])
    x, _ = known_set().batch(rows, torch.Generator().manual_seed(0), mirrored)
    torch.testing.assert_close(
        x[1:], torch.tensor([-0.05, -0.025]).view(2, 1, 1, 1).expand(2, 4, 2, 2), atol=1e-4, rtol=0
    )
    plain, _ = known_set().batch(rows, torch.Generator().manual_seed(0))
    assert torch.equal(x[0], plain[0])


def test_scores_see_the_same_latents_whatever_the_batch_size() -> None:
    def latents(batch_size: int) -> torch.Tensor:
        setting = replace(context(draws=40, batch_size=batch_size), images=known_set(40))
        return torch.cat([batch.x for batch in setting.draws()])

    assert torch.equal(latents(40), latents(8))


# ----------------------------------------------------------------------------------------------------------- encoding


def test_a_store_keeps_the_moments_of_each_image_and_of_its_mirror_image(case: Case, tmp_path: Path) -> None:
    how = settings(case.kl)
    kept = encoded(case, tmp_path, how)
    network = load_autoencoder(case.kl, how, CPU).network
    x, _ = ImageSet(case.store.images, case.store.labels, 2).batch(np.arange(COUNT))
    assert kept.moments.shape == (COUNT, 2, 8, SIDE // FACTOR, SIDE // FACTOR)
    for view, images in enumerate((x, x.flip(-1))):
        posterior = network.encode(images).latent_dist
        found = torch.from_numpy(np.array(kept.moments[:, view])).float()
        torch.testing.assert_close(found, torch.cat([posterior.mean, posterior.std], 1), atol=2e-3, rtol=2e-3)
    assert kept.manifest.splits == case.store.manifest.splits and kept.class_names == ("wren", "robin")
    assert np.array_equal(kept.labels, case.store.labels)
    assert len(kept.split("test")) == 3 and kept.split("test").shape == (4, 8, 8)
    assert isinstance(open_store(tmp_path / "latents"), LatentStore)
    assert isinstance(open_store(case.store.path), Store)
    assert not (tmp_path / "parts/moments.npy").exists()


def test_shards_written_side_by_side_are_the_same_store(case: Case, tmp_path: Path) -> None:
    """One batch an image: whatever the shards, each image is encoded alone."""
    one, four = (settings(case.kl, shards=shards, batch_size=1) for shards in (1, 4))
    alone = encoded(case, tmp_path / "one", one)
    with ThreadPoolExecutor(4) as pool:
        codec = load_autoencoder(case.kl, four, CPU)
        list(pool.map(lambda shard: encode_shard(case.store, codec, shard, tmp_path / "four/parts"), range(4)))
    assert gathered(case, tmp_path / "four", four).manifest == alone.manifest


def test_a_shard_says_how_far_it_is(case: Case, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr("entpruner.data.encoding.SAID", 2)
    with caplog.at_level("INFO"):
        encoded(case, tmp_path, settings(case.kl, shards=1, batch_size=1))
    assert caplog.messages == [f"{done} of {COUNT} images" for done in range(2, COUNT + 1, 2)]


def test_more_shards_than_images_and_no_mirror_images(case: Case, tmp_path: Path) -> None:
    kept = encoded(case, tmp_path, settings(case.kl, shards=COUNT + 3, mirror=False))
    assert kept.manifest.row == (1, 8, SIDE // FACTOR, SIDE // FACTOR)


def test_a_tiny_autoencoder_has_one_latent_an_image(case: Case, tmp_path: Path) -> None:
    how = settings(case.tiny, "tiny")
    images = encoded(case, tmp_path, how).split("train")
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    x, _ = images.batch(torch.arange(7), random)
    assert torch.equal(random.get_state(), before)
    codec = load_autoencoder(case.tiny, how, CPU)
    pixels, _ = case.store.split("train").batch(np.arange(7))
    torch.testing.assert_close(x, codec.encode(pixels), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(codec.decode(x), codec.network.decode(x).sample)


def test_latents_are_decoded_in_batches_at_the_scale_they_were_given(case: Case) -> None:
    codec = load_autoencoder(case.kl, settings(case.kl, scale=0.5), CPU)
    z = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codec.decode(0.5 * z), codec.network.decode(z).sample)


# --------------------------------------------------------------------------------------------- kills, disks, bad input


FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL_DISK], ids=["killed", "full disk"])
def test_a_shard_broken_off_is_encoded_anew_and_the_others_are_kept(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    how = settings(case.kl)
    undisturbed = encoded(case, tmp_path / "undisturbed", how)
    codec, parts = load_autoencoder(case.kl, how, CPU), tmp_path / "disturbed/parts"
    encode_shard(case.store, codec, 0, parts)
    plain = RowFile.write

    def write(self: RowFile, content: Iterator[tuple[int, bytes]]) -> str:
        plain(self, islice(content, 1))  # a part of it reaches the disk
        raise error

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, UserError)) as caught:
        patch.setattr(RowFile, "write", write)
        encode_shard(case.store, codec, 1, parts)
    if error is FULL_DISK:
        message = str(caught.value)
        assert "the disk is full" in message and str(parts) in message and "\n" not in message
    assert {file.name for file in parts.iterdir()} == {"moments.npy", "0.json"}
    encode_shard(case.store, codec, 1, parts)
    assert gathered(case, tmp_path / "disturbed", how).manifest == undisturbed.manifest


def test_a_disk_too_small_is_told_before_anything_is_encoded(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(rows.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    codec = load_autoencoder(case.kl, settings(case.kl), CPU)
    with pytest.raises(UserError, match=r"the latents need .* GiB more, 0.0 GiB are free; make room"):
        encode_shard(case.store, codec, 0, tmp_path / "parts")
    assert not list((tmp_path / "parts").glob("0.json*"))


def other_autoencoder(root: Path, case: Case) -> None:
    """The second shard was encoded by another one."""
    from diffusers import AutoencoderKL

    network = AutoencoderKL.from_pretrained(case.kl, low_cpu_mem_usage=False)
    torch.nn.init.zeros_(network.encoder.conv_in.bias)
    network.save_pretrained(root / "other")
    encode_shard(case.store, load_autoencoder(root / "other", settings(case.kl), CPU), 1, root / "parts")


def other_images(root: Path, case: Case) -> None:
    splits = {"train": (np.asarray(case.store.images[::-1]), np.asarray(case.store.labels))}
    write_store(root / "store", splits, ["wren", "robin"], {"source": "random"})
    codec = load_autoencoder(case.kl, settings(case.kl), CPU)
    encode_shard(Store.open(root / "store"), codec, 1, root / "parts")


def other_shards(root: Path, case: Case) -> None:
    encode_shard(
        case.store, load_autoencoder(case.kl, settings(case.kl, shards=3, batch_size=1), CPU), 1, root / "parts"
    )


def damaged(root: Path, case: Case) -> None:
    with (root / "parts/moments.npy").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"!")


def not_a_shard(root: Path, case: Case) -> None:
    (root / "parts/1.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_autoencoder, "not made from these images by this autoencoder"),
        (other_images, "not made from these images by this autoencoder"),
        (other_shards, "not made from these images by this autoencoder"),
        (not_a_shard, "not made from these images by this autoencoder"),
        (damaged, "rows 5 to 9 of .* are not what it wrote"),
    ],
)
def test_a_shard_that_does_not_belong_is_encoded_anew(
    case: Case, tmp_path: Path, spoil: Callable[[Path, Case], None], message: str
) -> None:
    how = settings(case.kl, batch_size=1)  # then an image's latents do not depend on the others of its batch
    codec, parts = load_autoencoder(case.kl, how, CPU), tmp_path / "parts"
    for shard in (0, 1):
        encode_shard(case.store, codec, shard, parts)
    spoil(tmp_path, case)
    with pytest.raises(UserError, match=rf"1\.json: .*{message}"):
        gathered(case, tmp_path, how)
    assert (parts / "0.json").exists() and not (parts / "1.json").exists()
    encode_shard(case.store, codec, 1, parts)
    gathered(case, tmp_path, how)


def test_shards_whose_file_is_gone_are_all_encoded_anew(case: Case, tmp_path: Path) -> None:
    how = settings(case.kl)
    encoded(case, tmp_path, how)  # which moves the file into the store
    with pytest.raises(UserError, match=r"0\.json: rows 0 to 4 .* are not what it wrote; .* 2 of 2 shards anew"):
        gathered(case, tmp_path, how)
    assert not list((tmp_path / "parts").iterdir())
    encoded(case, tmp_path, how)


def test_a_file_system_without_links_does(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert len(encoded(case, tmp_path, settings(case.kl)).labels) == COUNT
    assert not (tmp_path / "parts/moments.npy").exists()


def test_latents_that_are_not_finite_are_named(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codec, "encode", lambda self, x: torch.full((len(x), 8, 8, 8), 7e4))  # above float16's largest
    with pytest.raises(UserError, match="rows 0 to 1 have latents that are not finite"):
        encode_shard(case.store, load_autoencoder(case.kl, settings(case.kl), CPU), 0, tmp_path / "parts")


# -------------------------------------------------------------------------------------------------- the autoencoder


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def lacking_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS)
    del weights["decoder.conv_out.bias"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def odd_config(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (None, {"folder": "nowhere"}, "nowhere: no autoencoder here, config.json is missing; correct latents.folder"),
        (without(WEIGHTS), {}, f"no autoencoder here, {WEIGHTS} is missing"),
        (None, {"channels": 16}, "its latent channels is 4, the settings say 16"),
        (None, {"factor": 8}, "its factor is 2, the settings say 8"),
        (None, {"kind": "tiny"}, "its kind is AutoencoderKL, the settings say AutoencoderTiny"),
        (None, {"sha256": "0" * 64}, f"the sha256 of {WEIGHTS} is .*, expected 000"),
        (truncated, {}, f"{WEIGHTS}: not the weights of config.json beside it"),
        (lacking_a_weight, {}, "decoder.conv_out.bias is missing"),
        (odd_config, {}, "not the config of an autoencoder"),
    ],
)
def test_an_autoencoder_that_does_not_serve_is_refused(
    case: Case,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None] | None,
    changes: dict[str, Any],
    message: str,
) -> None:
    folder = shutil.copytree(case.kl, tmp_path / "kl")
    if spoil:
        spoil(folder)
    how = settings(folder, **changes)
    assert entpruner("autoencoder", {"latents": how.model_dump(mode="json")}, out=tmp_path / "out") == 1
    [line] = capsys.readouterr().err.splitlines()
    with pytest.raises(UserError, match=message):
        raise UserError(line)
    assert not (tmp_path / "out").exists()


def test_the_hub_is_asked_for_one_revision_and_its_refusal_is_one_line(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def answer(repository: str, name: str, revision: str) -> str:
        asked.append((repository, name, revision))
        return str(case.kl / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    how = settings("", hub="owner/vae", folder=None, revision="abc")
    fetch_autoencoder(how, tmp_path)
    assert asked == [("owner/vae", "config.json", "abc"), ("owner/vae", WEIGHTS, "abc")]
    assert sha256_of(tmp_path / WEIGHTS) == sha256_of(case.kl / WEIGHTS)

    def refuse(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"owner/vae \(abc\): can't get config.json from the hub \(no network\)"):
        fetch_autoencoder(how, tmp_path)


# ---------------------------------------------------------------------------------------------------- the commands


def test_a_network_is_trained_on_latents_and_its_samples_are_pixels(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = settings(case.kl).model_dump(mode="json")
    paths = {"store": case.store.path, "autoencoder": tmp_path / "autoencoder"}
    assert entpruner("autoencoder", {"latents": latents}, out=paths["autoencoder"]) == 0
    for shard in (0, 1):
        given = {"latents": latents, "shard": shard, "compute": COMPUTE}
        assert entpruner("latents_shard", given, **paths, parts=tmp_path / "parts") == 0
    shards = [tmp_path / f"parts/{shard}.json" for shard in (0, 1)]
    assert entpruner("latents", {"latents": latents}, **paths, shards=shards, out=tmp_path / "latents") == 0

    sizes = {"depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
    pretrain = {
        "artefact": "pretrain/sit",
        "seed": 0,
        "training": TRAINING | {"steps": 2, "horizontal_flip": True},
        "stop": 2,
        "compute": COMPUTE,
        "backbone": {"process": {"kind": "flow"}, **sizes},
    }
    assert entpruner("pretrain", pretrain, store=tmp_path / "latents", out=tmp_path / "model") == 0
    card = read_json(tmp_path / "model/model.json")
    assert (card["architecture"]["in_channels"], card["architecture"]["input_size"]) == (4, 8)

    sampling = {"samples": 5, "batch_size": 3, "flow": {"name": "euler", "steps": 2}}
    sample = {"seed": 0, "sampling": sampling, "latents": latents, "compute": COMPUTE}
    given = {"init": tmp_path / "model", "autoencoder": paths["autoencoder"], "latents": tmp_path / "latents"}
    assert entpruner("sample", sample, **given, out=tmp_path / "samples") == 0
    assert Store.open(tmp_path / "samples").images.shape == (5, 3, SIDE, SIDE)

    (tmp_path / "latents" / CHECKSUMS).unlink()  # which would be the first to see
    manifest = read_json(tmp_path / "latents/manifest.json")
    write_json(tmp_path / "latents/manifest.json", manifest | {"autoencoder_sha256": "0" * 64})
    assert entpruner("sample", sample, **given, out=tmp_path / "samples") == 1
    assert "not the latents of" in capsys.readouterr().err
    write_json(tmp_path / "latents/manifest.json", manifest | {"shape": [4, 4, 4]})
    assert entpruner("sample", sample, **given, out=tmp_path / "samples") == 1
    assert "for a model of inputs (4, 8, 8)" in capsys.readouterr().err


def test_no_module_loads_the_autoencoders_library_with_itself() -> None:
    """Its imports take seconds, which the few commands that need it take upon them. One room is about nothing else."""
    package = Path(rows.__file__).parents[1]
    for file in set(package.rglob("*.py")) - set((package / "pipelines").rglob("*.py")):
        at_once = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        named = {alias.name for node in at_once for alias in node.names}
        named |= {node.module or "" for node in at_once if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in named} & {"diffusers", "huggingface_hub"}, file


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_a_plan_counts_what_the_published_autoencoders_cost(kind: str) -> None:
    """Stable Diffusion's and TAESD's networks, without their weights."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        widths = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
        network = AutoencoderKL(**levels, **widths) if kind == "kl" else AutoencoderTiny()
        x, z = torch.zeros(1, 3, 256, 256), torch.zeros(1, 4, 32, 32)
    macs = []
    for job in (lambda: network.encode(x), lambda: network.decode(z)):
        with FlopCounterMode(display=False) as counter:
            job()
        macs.append(counter.get_total_flops() / 2)
    counted = *AUTOENCODER_MACS[kind], AUTOENCODER_PARAMETERS[kind]
    assert (*macs, parameters(network)) == pytest.approx(counted, rel=0.03)
