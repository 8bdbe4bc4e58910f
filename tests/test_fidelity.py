"""Distances between sets of images: what they are worth, what they are called, and the networks they are seen by."""

import io
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import Runs
from safetensors.torch import save_file
from torch import Tensor

from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.evaluation import fidelity
from entpruner.evaluation.classifier import Classifier
from entpruner.evaluation.extractors import FeatureNet, checked_weights, classifier_net, inception_net, torchvision_net
from entpruner.evaluation.fidelity import evaluate, frechet_distance, inception_score, stratified_order
from entpruner.params.evaluation import Evaluation, InceptionExtractor, TorchvisionExtractor
from entpruner.system.files import sha256_of

CPU = torch.device("cpu")
SETTINGS = Evaluation(kid_subsets=10, kid_subset_size=100)


def pixels(images: Tensor) -> Tensor:
    """The simplest feature net: every pixel."""
    return images.flatten(1).float()


def pixel_net(name: str = "pixels", kind: str = "torchvision") -> FeatureNet:
    return FeatureNet(name, kind, pixels, CPU, batch_size=64)


def images(n: int, *, mean: float = 128, spread: float = 30, seed: int = 0, classes: int = 4) -> ImageSet:
    """Grey 2x2 images with independent Gaussian pixels."""
    draw = np.random.default_rng(seed)
    values = draw.normal(mean, spread, size=(n, 1, 2, 2)).clip(0, 255).astype(np.uint8)
    return ImageSet(values, np.arange(n) % classes, classes)


def measured(real: ImageSet, generated: ImageSet, *nets: FeatureNet, seed: int = 0, **changes: int) -> dict[str, Any]:
    """On pixels, unless nets are given."""
    return evaluate(real, generated, nets or [pixel_net()], SETTINGS.model_copy(update=changes), seed=seed)


# ---------------------------------------------------------------------------------------------------------- distances


def whitened(n: int, d: int, draw: torch.Generator) -> Tensor:
    """Samples whose own mean is exactly 0 and covariance exactly the identity: (n, d) float64."""
    x = torch.randn(n, d, generator=draw, dtype=torch.float64)
    x = x - x.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T


@given(st.integers(0, 10**6), st.floats(-2, 2), st.floats(0.1, 5))
@settings(max_examples=20)
def test_the_frechet_distance_of_two_gaussians_is_the_analytic_one(seed: int, shift: float, scale: float) -> None:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½); with covariances A Aᵀ and s² A Aᵀ it is |m|² + (1 - s)² tr(A Aᵀ)."""
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(5, 5, generator=draw, dtype=torch.float64)
    first = whitened(40, 5, draw) @ a.T
    second = scale * (whitened(50, 5, draw) @ a.T) + shift
    expected = 5 * shift**2 + (1 - scale) ** 2 * float((a @ a.T).trace())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_statistics_are_float64_where_float32_would_lose_the_spread() -> None:
    """Features of one part in a million around a large mean: float32 sums would drown them."""
    x = whitened(200, 3, torch.Generator().manual_seed(0)) * 1e-4
    assert frechet_distance(x + 1000, 2 * x + 1000) == pytest.approx(3e-8, rel=1e-3)
    net = pixel_net()
    assert net.features(images(10).images).dtype == torch.float64


def test_features_are_not_computed_in_tf32() -> None:
    seen = []

    def network(batch: Tensor) -> Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return pixels(batch)

    torch.set_float32_matmul_precision("high")  # as a command sets it on CUDA
    try:
        FeatureNet("net", "torchvision", network, CPU, batch_size=64).features(images(10).images)
        assert seen == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_set_has_no_distance_to_itself() -> None:
    metrics = measured(images(100), images(100))
    assert metrics["fd_pixels"] == pytest.approx(0, abs=1e-6 * metrics["fd_pixels_floor"])
    assert metrics["precision_pixels"] == metrics["recall_pixels"] == 1


# ------------------------------------------------------------------------------------------------------ the real floor


def test_precision_and_recall_see_at_most_so_many_images_of_each_side() -> None:
    sets = images(200), images(300, seed=1, mean=140)
    whole, drawn = measured(*sets), measured(*sets, manifold_images=250)
    changed = {key for key in whole if whole[key] != drawn[key]}
    assert changed and changed <= {"precision_pixels", "recall_pixels"}
    assert abs(drawn["recall_pixels"] - whole["recall_pixels"]) < 0.2
    assert drawn == measured(*sets, manifold_images=250)


def test_real_quality_scores_a_ratio_near_one_and_worse_quality_more() -> None:
    as_good, shifted = (measured(images(400, seed=1), images(300, mean=mean, seed=2)) for mean in (128, 140))
    assert as_good["half_images"] == 200
    assert 0.4 < as_good["fd_pixels_ratio"] < 2.5
    assert shifted["fd_pixels_floor"] == as_good["fd_pixels_floor"]  # the floor is a matter of the real images alone
    assert shifted["fd_pixels_ratio"] > 5
    assert shifted["fd_pixels_ratio"] == pytest.approx(shifted["fd_pixels_half"] / shifted["fd_pixels_floor"])


def test_both_sides_of_the_ratio_count_the_same_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counting(first: Tensor, second: Tensor) -> float:
        sizes.append((len(first), len(second)))
        return 1.0

    monkeypatch.setattr(fidelity, "frechet_distance", counting)
    metrics = measured(images(101), images(30))
    assert metrics["half_images"] == 30
    assert sizes.count((30, 30)) == 2 * fidelity.HALVINGS and sizes.count((30, 101)) == 1 and len(set(sizes)) == 2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 10**6))
def test_halves_are_disjoint_and_hold_the_classes_in_proportion(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, torch.Generator().manual_seed(seed))
    assert sorted(order) == list(range(len(labels)))
    half = len(labels) // 2
    for label, count in enumerate(counts):
        first = int((labels[order[:half]] == label).sum())
        # A class misses its share of a stretch by 1 at most, the stretch's end by 1 for each class.
        assert abs(first - count * half / len(labels)) <= 1 + count * len(counts) / len(labels)


def test_a_seed_decides_every_number() -> None:
    sets = images(60, seed=1), images(50, seed=2)
    first = measured(*sets)
    assert first == measured(*sets)
    assert first["fd_pixels_floor"] != measured(*sets, seed=1)["fd_pixels_floor"]
    assert all(isinstance(value, (float, int)) and np.isfinite(value) for value in first.values())


# --------------------------------------------------------------------------------------------------- names and guards


def test_only_inception_has_a_fid() -> None:
    sets = images(40, seed=1), images(40, seed=2)
    inception = measured(*sets, pixel_net("anything", "inception"))
    assert {"fid", "fid_floor", "fid_ratio", "kid", "kid_std", "precision", "recall"} <= set(inception)
    other = measured(*sets, pixel_net("squeezenet"))
    assert {"fd_squeezenet", "fd_squeezenet_floor", "kid_squeezenet", "kid_squeezenet_std"} <= set(other)
    assert not {key for key in other if key.startswith("fid") or key in {"kid", "precision", "recall"}}


def test_the_same_name_with_other_images_is_another_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity's cache goes by name only: nothing here may touch it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    near, far = (measured(images(60, seed=1), images(60, mean=mean, seed=2)) for mean in (128, 170))
    assert far["fd_pixels"] > 2 * near["fd_pixels"]
    assert not list(tmp_path.iterdir())


def test_few_generated_images_shrink_kids_subsets_and_flag_a_singular_covariance() -> None:
    found = {n: measured(images(60), images(n, seed=2)) for n in (60, 25, 4)}  # four images, four pixels
    assert {n: metrics["kid_subset_size"] for n, metrics in found.items()} == {60: 60, 25: 25, 4: 4}
    assert {n: metrics["fd_pixels_rank_deficient"] for n, metrics in found.items()} == {60: 0, 25: 0, 4: 1}


@pytest.mark.parametrize(("real", "generated"), [(7, 50), (50, 3)])
def test_too_few_images_is_an_error(real: int, generated: int) -> None:
    with pytest.raises(UserError, match=r"too few for evaluation\.neighbours 3; give at least 4 and 8"):
        measured(images(real), images(generated))


def test_agreement_is_the_share_found_in_the_class_asked_for() -> None:
    classifier = Classifier(in_channels=1, num_classes=2, width=2, features=3)
    torch.nn.init.zeros_(classifier.head.weight)
    classifier.head.bias.data = torch.tensor([0.0, 1.0])  # it finds class 1 everywhere
    net = classifier_net("classifier", classifier, CPU, batch_size=16)
    generated = ImageSet(images(40).images, np.array([1] * 30 + [0] * 10), 2)
    metrics = measured(images(40, classes=2), generated, pixel_net(), net)
    assert (metrics["agreement"], metrics["agreement_0"], metrics["agreement_1"]) == (0.75, 0, 1)
    assert metrics["is_classifier"] == pytest.approx(1)  # it sees nothing in any image
    assert "is" not in metrics  # the Inception score is called so on Inception alone
    assert not {"agreement", "is_pixels"} & measured(images(40), generated).keys()
    inception = FeatureNet("any", "inception", pixels, CPU, batch_size=64, logits=lambda features: features)
    metrics = measured(images(40), images(40, seed=2), inception)
    assert "is" in metrics and "agreement" not in metrics  # its classes are not the study's


def one_hot(classes: list[int], of: int, certainty: float = 100) -> Tensor:
    """Logits of a net that is (nearly) certain of these classes."""
    return certainty * torch.eye(of, dtype=torch.float64)[classes]


def test_the_inception_score_counts_the_classes_that_are_certain_and_alike_in_number() -> None:
    assert inception_score(one_hot([0, 1, 2, 3] * 5, of=7), seed=0) == pytest.approx(4)
    assert inception_score(one_hot([2] * 20, of=7), seed=0) == pytest.approx(1)
    assert inception_score(torch.zeros(20, 7), seed=0) == pytest.approx(1)  # it sees nothing in any image
    # exp(H(p(class))) for certain classes in the shares 3/4 and 1/4
    assert inception_score(one_hot([0, 0, 0, 1], of=2), seed=0) == pytest.approx(4 / 3**0.75)


@given(st.integers(0, 10**6), st.floats(0.1, 10))
@settings(max_examples=20)
def test_the_inception_score_lies_between_one_and_the_number_of_classes(seed: int, scale: float) -> None:
    logits = scale * torch.randn(30, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert 1 <= inception_score(logits, seed) <= 6


def test_few_images_are_one_split_and_many_are_split_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = inception_score(logits, seed=0)
    assert whole == pytest.approx(inception_score(logits.flip(0), seed=1), rel=1e-12)
    monkeypatch.setattr(fidelity, "SPLIT", 10)
    split = inception_score(logits, seed=0)
    assert split == inception_score(logits, seed=0) != inception_score(logits, seed=1)
    assert split < whole  # each split's p(class) is fitted to its own ten images


# -------------------------------------------------------------------------------------------------------- feature nets


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in torchvision's key layout, fp16."""
    from torchvision.models import squeezenet1_0

    file = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file({name: value.half() for name, value in squeezenet1_0().state_dict().items()}, file)
    return file


def torchvision(file: Path, **more: str) -> FeatureNet:
    settings = {"kind": "torchvision", "model": "squeezenet1_0", "weights": str(file)} | more
    return torchvision_net("net", TorchvisionExtractor(**settings), CPU, batch_size=2)


def test_torchvision_features_are_what_the_last_layer_sees(squeezenet: Path) -> None:
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_0
    from torchvision.transforms import v2

    grey = np.random.default_rng(0).integers(0, 256, size=(2, 1, 32, 32), dtype=np.uint8)
    net = torchvision(squeezenet)
    model = squeezenet1_0().eval()
    model.load_state_dict(load_file(squeezenet))
    seen: list[Tensor] = []
    model.classifier[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    prepare = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((224, 224), antialias=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad():
        model(prepare(torch.from_numpy(grey).expand(-1, 3, -1, -1)))
    features = net.features(grey)
    assert features.shape == (2, 512) and features.dtype == torch.float64
    torch.testing.assert_close(features, seen[0].mean(dim=(2, 3)).double(), rtol=1e-4, atol=1e-5)


def test_other_channels_than_an_images_are_refused(squeezenet: Path) -> None:
    net = torchvision(squeezenet)
    with pytest.raises(UserError, match="1 or 3 channels, not 4; decode latents first"):
        net.features(np.zeros((2, 4, 8, 8), dtype=np.uint8))


def test_weights_of_another_model_or_checksum_are_refused(squeezenet: Path) -> None:
    with pytest.raises(UserError, match=r"squeezenet\.safetensors is not a mobilenet_v2"):
        torchvision(squeezenet, model="mobilenet_v2")
    with pytest.raises(UserError, match=r"no classifier 'squeezenet1_9'; did you mean \['squeezenet1_"):
        torchvision(squeezenet, model="squeezenet1_9")
    with pytest.raises(UserError, match=f"has sha256 {sha256_of(squeezenet)}, the params say 00"):
        torchvision(squeezenet, sha256="0" * 64)
    assert checked_weights("net", squeezenet, sha256_of(squeezenet))


def test_unsafe_truncated_and_missing_weights_are_refused(squeezenet: Path, tmp_path: Path) -> None:
    trap, mark = tmp_path / "trap.pth", tmp_path / "mark"
    torch.save({"classifier.1.weight": Runs(os.mkdir, str(mark))}, trap)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(squeezenet.read_bytes()[:1000])
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {}}, wrapped)
    with pytest.raises(UserError, match=r"^extractor net: .*wrapped\.pth: not a state dict"):
        torchvision(wrapped)
    for file, problem in ((trap, "damaged, or a pickle with code, which is not run"), (cut, "truncated")):
        with pytest.raises(UserError, match=f"{file.name}: {problem}"):
            torchvision(file)
    with pytest.raises(UserError, match=f"{trap.name}: damaged"):
        inception_net("net", InceptionExtractor(kind="inception", weights=str(trap)), CPU, 2)
    assert not mark.exists()
    with pytest.raises(UserError, match=r"there is no weights file .*nowhere\.pth"):
        torchvision(tmp_path / "nowhere.pth")


def test_inception_without_weights_or_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", offline)
    with pytest.raises(UserError, match=r"cannot download https://.*give `weights`, a local copy") as error:
        inception_net("inception", InceptionExtractor(kind="inception"), CPU, 2)
    assert "\n" not in str(error.value)


def test_inception_features_and_logits_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with monkeypatch.context() as patch, torch.random.fork_rng():
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        layers = ["2048", "logits_unbiased"]
        random = FeatureExtractorInceptionV3("random", layers, feature_extractor_weights_path=nothing)
    file = tmp_path / "inception.safetensors"
    save_file(random.state_dict(), file)
    net = inception_net("inception", InceptionExtractor(kind="inception", weights=str(file)), CPU, batch_size=2)
    grey = np.random.default_rng(0).integers(0, 256, size=(2, 1, 8, 8), dtype=np.uint8)
    features = net.features(grey)
    assert features.dtype == torch.float64
    with torch.no_grad():
        expected, logits = random(torch.from_numpy(grey).expand(-1, 3, -1, -1).contiguous())
    torch.testing.assert_close(features, expected.double(), rtol=1e-4, atol=1e-5)
    assert net.logits is not None
    torch.testing.assert_close(net.logits(features), logits, rtol=1e-4, atol=1e-5)
