import itertools
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file
from small_training import (
    ARCHITECTURE,
    CPU,
    FLOW,
    SETTINGS,
    Hooked,
    Kill,
    bits,
    close,
    drawn,
    images,
    in_float64,
    killed_at,
    new_state,
    new_state_in_float64,
    run,
    untimed,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from entpruner.data.store import ImageSet
from entpruner.errors import Stopped, UserError
from entpruner.layout import CHECKSUMS
from entpruner.models.checkpoints import build
from entpruner.models.transformer import Block, Transformer
from entpruner.params.backbones import Diffusion, Flow, UNetArchitecture
from entpruner.params.compute import Compute
from entpruner.params.training import Training
from entpruner.process import make_process
from entpruner.system.devices import compiler_problem, configure, device_of
from entpruner.system.files import write_json
from entpruner.system.randomness import generator
from entpruner.training import resume
from entpruner.training.batches import batch_indices
from entpruner.training.loop import draw_batch, learning_rate
from entpruner.training.objective import Objective
from entpruner.training.state import TrainState

Ended = tuple[dict[str, bytes], list[dict[str, Any]]]


def ended(folder: Path, objective: Objective | None = None) -> Ended:
    """The bits and the curve that a run ends with."""
    state = new_state()
    curve = run(state, folder, objective)
    return bits(state), untimed(curve)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return ended(tmp_path_factory.mktemp("whole"))


# ------------------------------------------------------------------------------------------------- schedule, batches


def test_the_learning_rate_warms_up_linearly_and_falls_as_half_a_cosine():
    cosine = Training(steps=14, learning_rate=0.8, warmup_steps=4, decay="cosine")
    rates = [learning_rate(cosine, step) for step in range(14)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[9] == pytest.approx(0.4)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[13] < 0.02
    constant = cosine.model_copy(update={"decay": "constant"})
    assert {learning_rate(constant, step) for step in range(3, 14)} == {0.8}


def test_warm_restarts_repeat_half_a_cosine_after_the_warm_up():
    settings = Training(steps=14, learning_rate=0.8, warmup_steps=4, decay="restarts", restart_every=4)
    rates = [learning_rate(settings, step) for step in range(14)]
    assert rates[4:8] == rates[8:12] == pytest.approx([0.8, 0.4 + 0.4 / 2**0.5, 0.4, 0.4 - 0.4 / 2**0.5])
    assert rates[12:] == rates[4:6] and rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])


@given(count=st.integers(1, 20), batch_size=st.integers(1, 50), seed=st.integers(0, 3))
def test_every_image_is_seen_once_an_epoch(count: int, batch_size: int, seed: int):
    steps = 3 * count // batch_size + 1
    seen = torch.cat([batch_indices(step, batch_size, count, seed, "a") for step in range(steps)]).tolist()
    assert len(seen) == steps * batch_size
    for first in range(0, len(seen), count):
        epoch = seen[first : first + count]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(count))


def test_epochs_seeds_and_artefacts_have_orders_of_their_own():
    orders = [
        batch_indices(step, 50, 50, seed, artefact)
        for step, seed, artefact in [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b")]
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    assert torch.equal(orders[0], batch_indices(0, 50, 50, 0, "a"))


def test_a_batch_drops_the_asked_share_of_labels_and_mirrors_half_of_the_images():
    indices = torch.arange(3000) % 10
    options = Training(steps=1, label_dropout=0.3, horizontal_flip=True)
    x, noise, t, y = draw_batch(images(), indices, FLOW, options, generator(1))
    original, labels = images().batch(indices)
    dropped = y == 3  # the null class of three classes
    assert 0.27 < dropped.float().mean() < 0.33
    assert torch.equal(y[~dropped], labels[~dropped])
    mirrored = (x == original.flip(-1)).flatten(1).all(1)
    assert 0.47 < mirrored.float().mean() < 0.53
    assert torch.equal(x[~mirrored], original[~mirrored])
    assert noise.shape == x.shape
    assert t.shape == y.shape


def test_without_dropout_and_mirroring_a_batch_is_the_data():
    indices = torch.arange(10)
    x, _, _, y = draw_batch(images(), indices, FLOW, Training(steps=1, label_dropout=0), generator(1))
    original, labels = images().batch(indices)
    assert torch.equal(x, original)
    assert torch.equal(y, labels)


# ----------------------------------------------------------------------------------------------------------- training


def test_steps_are_those_of_a_plain_adamw_loop(tmp_path: Path):
    options = SETTINGS.model_copy(update={"decay": "constant", "warmup_steps": 0})
    state, plain = new_state(), new_state().model
    run(state, tmp_path, settings=options)
    weights = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.01, fused=True)
    for step in range(9):
        batch = draw_batch(images(), batch_indices(step, 4, 10, 0, "a"), FLOW, options, generator(0, "a", step))
        optimizer.zero_grad()
        FLOW.losses(plain, *batch)["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(state.model.state_dict()[name], tensor), name


OPTIMIZERS = [
    pytest.param({"optimizer": "sgd", "momentum": 0.9}, id="sgd"),
    pytest.param({"optimizer": "muon", "momentum": 0.95}, id="muon"),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_torch_s_own_optimizers(tmp_path: Path, optimizer: dict[str, Any]):
    options = SETTINGS.model_copy(update={"decay": "constant", "warmup_steps": 0, **optimizer})
    state, plain = new_state(options.optimizer), new_state().model
    run(state, tmp_path, settings=options)
    weights = {name: weight for name, weight in plain.named_parameters() if weight.requires_grad}
    common = {"lr": 1e-2, "weight_decay": 0.01}
    if options.optimizer == "sgd":
        steppers = [torch.optim.SGD(weights.values(), momentum=0.9, **common)]
    else:
        matrices = {name for name, weight in weights.items() if name.startswith("blocks.") and weight.dim() == 2}
        assert len(matrices) == 3 * 5  # qkv, projection, two of the MLP and the modulation
        muon = torch.optim.Muon(
            [weights[name] for name in matrices], momentum=0.95, adjust_lr_fn="match_rms_adamw", **common
        )
        others = [weight for name, weight in weights.items() if name not in matrices]
        steppers = [muon, torch.optim.AdamW(others, fused=True, **common)]
    for step in range(9):
        batch = draw_batch(images(), batch_indices(step, 4, 10, 0, "a"), FLOW, options, generator(0, "a", step))
        plain.zero_grad()
        FLOW.losses(plain, *batch)["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 0.5)
        for stepper in steppers:
            stepper.step()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(state.model.state_dict()[name], tensor), name


def test_the_average_halves_its_memory_every_half_life_and_continues_from_the_stage_before(tmp_path: Path):
    history: list[Tensor] = []
    state = new_state()
    name = "blocks.0.attn.qkv.weight"
    with torch.no_grad():
        state.ema.get_parameter(name).fill_(3)
    watch = Hooked(lambda model, *_: history.append(model.get_parameter(name).detach().clone()))
    options = SETTINGS.model_copy(update={"ema_half_life": 3})
    run(state, tmp_path, watch, options, start=3)  # 6 steps
    history.append(state.model.get_parameter(name).detach())
    decay = 0.5 ** (1 / 3)
    expected = torch.full_like(history[0], 3) * decay**6  # what is left of the old average: a quarter
    for age, weights in enumerate(reversed(history[1:])):
        expected += (1 - decay) * decay**age * weights
    torch.testing.assert_close(state.ema.get_parameter(name).detach(), expected)


def test_the_average_of_a_stage_and_of_a_whole_run_has_the_same_half_life():
    stages = [Training(steps=300), Training(steps=300, ema_half_life=40), Training(steps=300, ema_share=0.25)]
    found = [[training.half_life(stretch) for stretch in (300, 150, 38)] for training in stages]
    assert found == [[30, 30, 30], [40, 40, 40], [75, 37.5, 9.5]]  # the last: as the first published digits had it


@pytest.mark.parametrize("process", [Flow(), Diffusion()], ids=["flow", "diffusion"])
def test_the_loss_falls(tmp_path: Path, process: Flow | Diffusion):
    white = ImageSet(np.full((10, 1, 8, 8), 255, dtype=np.uint8), images().labels, num_classes=3)
    options = Training(steps=80, batch_size=10, learning_rate=1e-2, log_every=20)
    curve = run(new_state(), tmp_path, settings=options, process=make_process(process), images=white)
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_the_curve_has_a_point_every_few_steps_and_at_the_end(tmp_path: Path):
    state = new_state().drop_blocks({1})
    curve = run(state, tmp_path, Hooked(lambda _, calls, loss: 0 * loss + calls), start=2)
    assert [point["step"] for point in curve] == [4, 8, 9]
    assert [point["loss"] for point in curve] == [0.5, 3.5, 6.0]  # means of calls 0..1, 2..5 and 6
    assert [point["lr"] for point in curve] == [learning_rate(SETTINGS, step) for step in (3, 7, 8)]
    assert {point["blocks"] for point in curve} == {2}
    assert all(point["images_per_second"] > 0 for point in curve)
    assert state.step == 9


def test_a_stage_of_no_steps_changes_nothing(tmp_path: Path):
    state = new_state()
    before = bits(state)
    assert run(state, tmp_path, start=4, stop=4) == []
    assert bits(state) == before
    assert state.step == 4


def test_images_of_other_classes_are_refused(tmp_path: Path):
    state = TrainState.start(Transformer(ARCHITECTURE.model_copy(update={"num_classes": 2})))
    with pytest.raises(UserError, match="3 classes, the model 2"):
        run(state, tmp_path)


# ----------------------------------------------------------------------------------------- what saves memory, or time


@pytest.mark.parametrize(
    "compute", [{"micro_batch": 2}, {"micro_batch": 3}, {"micro_batch": 9}, {"gradient_checkpointing": True}], ids=str
)
def test_pieces_and_checkpointing_change_the_result_by_rounding_alone(tmp_path: Path, compute: dict[str, Any]):
    whole, saving = new_state_in_float64(), new_state_in_float64()
    curve = run(whole, tmp_path / "whole", objective=in_float64)
    other = run(saving, tmp_path / "saving", objective=in_float64, compute=Compute(device="cpu", **compute))
    close(saving, whole)
    assert [point["loss"] for point in other] == pytest.approx([point["loss"] for point in curve], rel=1e-9)


@pytest.mark.parametrize("architecture", [ARCHITECTURE, UNetArchitecture(input_size=8, in_channels=1, num_classes=3)])
def test_checkpointing_keeps_what_enters_the_blocks_and_gives_the_same_gradients(architecture: Any):
    model = drawn(build(architecture).double())
    x, noise, t, y = draw_batch(images(), torch.arange(10), FLOW, SETTINGS, generator(1))
    gradients, kept = [], []
    for model.checkpointing in (False, True):
        saved: dict[int, int] = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(partial(remember, saved), lambda tensor: tensor)
        with hooks:
            loss = in_float64(model, x, noise, t, y)
        kept.append(sum(saved.values()))
        torch.autograd.backward(loss)
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)
    assert kept[1] < 0.5 * kept[0]


def remember(saved: dict[int, int], tensor: Tensor) -> Tensor:
    saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


def test_all_blocks_share_one_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torch._dynamo.testing import CompileCounter  # seconds

    counter = CompileCounter()
    monkeypatch.setattr("entpruner.models.network.compiler_problem", lambda _: None)  # a trial is not counted
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    plain, compiled = new_state_in_float64(), new_state_in_float64()
    run(plain, tmp_path / "plain", objective=in_float64)
    run(compiled, tmp_path / "compiled", objective=in_float64, compute=Compute(device="cpu", compile=True))
    assert counter.frame_count == 1
    close(compiled, plain)


def test_without_a_compiler_it_trains_all_the_same_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    compiler_problem.cache_clear()
    plain, compiled = new_state(), new_state()
    run(plain, tmp_path / "plain")
    run(compiled, tmp_path / "compiled", compute=Compute(device="cpu", compile=True))
    compiler_problem.cache_clear()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "compute.compile: going on without it, because torch.compile fails here: no C++ compiler"
    ]
    assert not compiled.model.compiled
    for ours, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# ------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("step", range(9))
def test_killed_at_any_step_and_started_again_it_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: Ended, step: int
):
    with pytest.raises(Kill):
        run(new_state(), tmp_path, killed_at(step))
    again = Hooked(lambda *_: None)
    assert ended(tmp_path, again) == uninterrupted
    assert again.calls == 9 - step // 3 * 3  # it went on from the last checkpoint


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_killed_with_any_optimizer_and_between_restarts_it_ends_with_the_same_bits(
    tmp_path: Path, optimizer: dict[str, Any]
):
    options = SETTINGS.model_copy(update={"decay": "restarts", "restart_every": 4, **optimizer})
    whole, again = new_state(options.optimizer), new_state(options.optimizer)
    curve = run(whole, tmp_path / "whole", settings=options)
    with pytest.raises(Kill):
        run(new_state(options.optimizer), tmp_path / "killed", killed_at(7), options)
    assert untimed(run(again, tmp_path / "killed", settings=options)) == untimed(curve)
    assert bits(again) == bits(whole)


@pytest.mark.parametrize("step", range(9))
def test_asked_to_stop_at_any_step_it_saves_that_step_and_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: Ended, step: int
):
    before = signal.getsignal(signal.SIGTERM)
    asking = Hooked(lambda _, calls, __: signal.raise_signal(signal.SIGTERM) if calls == step else None)
    if step < 8:
        with pytest.raises(Stopped, match=f"step-{step + 1:08d}: run the same command again"):
            run(new_state(), tmp_path, asking)
        assert signal.getsignal(signal.SIGTERM) == before
        asking = Hooked(lambda *_: None)
    assert ended(tmp_path, asking) == uninterrupted  # asked in its last step, it just ends
    assert asking.calls == (9 if step == 8 else 8 - step)
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_folder_it_keeps_no_signal_for_itself():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    watch = Hooked(lambda *_: seen.append(signal.getsignal(signal.SIGTERM)))
    run(new_state(), None, watch, stop=1)
    assert seen == [before]


@settings(max_examples=5)
@given(kills=st.lists(st.integers(0, 8), max_size=3), log_every=st.integers(1, 9), checkpoint_every=st.integers(1, 9))
def test_however_often_it_is_killed(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], log_every: int, checkpoint_every: int
):
    options = SETTINGS.model_copy(update={"log_every": log_every, "checkpoint_every": checkpoint_every})

    def pruned() -> TrainState:
        return new_state().drop_blocks({0})

    whole = pruned()
    curve = run(whole, tmp_path_factory.mktemp("whole"), settings=options)
    folder = tmp_path_factory.mktemp("killed")
    for calls in kills:
        with suppress(Kill):
            run(pruned(), folder, killed_at(calls), options)
    state = pruned()
    again = run(state, folder, settings=options)
    assert bits(state) == bits(whole)
    assert untimed(again) == untimed(curve)


def test_killed_by_sigkill_while_it_writes_or_deletes_a_checkpoint(tmp_path: Path, uninterrupted: Ended):
    """Forks train until their n-th event on the file system, as Python's audit events of the checkpoints' files tell.

    So they die before, between and inside the writes, renames and deletions of files.
    """
    names = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
    left = {}
    for n in (*range(2, 32, 4), 1000):  # the last one lives to its end
        folder = tmp_path / str(n)
        child = os.fork()
        if not child:
            seen = itertools.count(1)
            sys.addaudithook(
                lambda event, _, n=n, seen=seen: (
                    os.kill(os.getpid(), signal.SIGKILL) if event in names and next(seen) == n else None
                )
            )
            run(new_state(), folder)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if n == 1000 else -signal.SIGKILL)
        left[n] = [path.name for path in folder.glob("*")]
        assert ended(folder) == uninterrupted, (n, left[n])
    assert any(name.endswith(".partial") for names in left.values() for name in names)  # some died while writing


def test_neither_loading_nor_training_imports_the_compiler(tmp_path: Path):
    """Its imports take seconds, and the meta device would need them."""
    script = (
        "import sys; from pathlib import Path; from small_training import *; state = new_state()\n"
        "from entpruner.models.checkpoints import ModelCard, load_model, save_model\n"
        "card = ModelCard(architecture=ARCHITECTURE, kept_blocks=(0, 1, 2), process=Flow(), class_names=tuple('abc'))\n"
        "save_model(Path(sys.argv[1]), state.ema, card), load_model(Path(sys.argv[1])), run(state, None, stop=1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=Path(__file__).parent, check=True)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path):
    run(new_state(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006"]


def test_a_checkpoint_of_other_settings_is_ignored_with_a_line_in_the_log(
    tmp_path: Path, uninterrupted: Ended, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(Kill):
        run(new_state(), tmp_path, killed_at(7), fingerprint="other", seed=5)
    with caplog.at_level(logging.WARNING):
        assert ended(tmp_path) == uninterrupted
    assert "step-00000006 is from a run with other settings: ignored" in caplog.text


@pytest.mark.parametrize("file", ["state-00001-of-00001.safetensors", "run.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_ignored_with_a_line_in_the_log(
    tmp_path: Path, uninterrupted: Ended, caplog: pytest.LogCaptureFixture, file: str, damage: str
):
    with pytest.raises(Kill):
        run(new_state(), tmp_path, killed_at(7))
    path = tmp_path / "step-00000006" / file
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert ended(tmp_path) == uninterrupted
    assert "step-00000006 is damaged: ignored" in caplog.text


def test_what_others_leave_in_the_folder_stops_no_training(tmp_path: Path, uninterrupted: Ended):
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "step-00000001.copy").touch()
    assert ended(tmp_path) == uninterrupted
    assert (tmp_path / ".DS_Store").exists()


def rewritten(checkpoint: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what ``run.json`` says, as if the run had written it so."""
    write_json(checkpoint / "run.json", change(json.loads((checkpoint / "run.json").read_text())))
    (checkpoint / CHECKSUMS).unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lambda checkpoint: rewritten(checkpoint, lambda record: record | {"curve": "none"}),
        lambda checkpoint: rewritten(checkpoint, lambda record: record | {"curve": [{"step": 3}]}),
        lambda checkpoint: rewritten(checkpoint, lambda record: record | {"recent": None}),
        lambda checkpoint: rewritten(checkpoint, lambda record: None),
        lambda checkpoint: rewritten(checkpoint, lambda record: [record]),
        lambda checkpoint: (checkpoint / "run.json").write_text("[" * 100_000),
        lambda checkpoint: checkpoint.rename(checkpoint.with_name("step-00000009")),
    ],
)
def test_a_checkpoint_that_says_nonsense_is_ignored_with_a_line_in_the_log(
    tmp_path: Path, uninterrupted: Ended, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], Any]
):
    with pytest.raises(Kill):
        run(new_state(), tmp_path, killed_at(7))
    damage(tmp_path / "step-00000006")
    with caplog.at_level(logging.WARNING):
        assert ended(tmp_path) == uninterrupted
    assert "is damaged: ignored" in caplog.text


@pytest.mark.parametrize("file", ["state-00001-of-00001.safetensors", "run.json"])
def test_a_flipped_bit_in_a_checkpoint_is_found(
    tmp_path: Path, uninterrupted: Ended, caplog: pytest.LogCaptureFixture, file: str
):
    with pytest.raises(Kill):
        run(new_state(), tmp_path, killed_at(7))
    path = tmp_path / "step-00000006" / file
    path.write_bytes(path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 1]) + path.read_bytes()[-8:])
    with caplog.at_level(logging.WARNING):
        assert ended(tmp_path) == uninterrupted
    assert "step-00000006 is damaged: ignored" in caplog.text and "has changed since it was written" in caplog.text


def test_a_full_disk_ends_a_training_in_one_line_and_loses_no_checkpoint(
    tmp_path: Path, uninterrupted: Ended, monkeypatch: pytest.MonkeyPatch
):
    def full(tensors: Any, file: Path) -> None:
        if "00000006" in str(file):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, file)

    with monkeypatch.context() as patched:
        patched.setattr(resume, "save_file", full)
        with pytest.raises(UserError, match="the disk is full") as caught:
            run(new_state(), tmp_path)
    assert "\n" not in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert ended(tmp_path) == uninterrupted


# --------------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_step_rate_and_last_good_checkpoint(tmp_path: Path, value: float):
    with pytest.raises(UserError) as error:
        run(new_state(), tmp_path, Hooked(lambda _, calls, loss: loss * value if calls == 4 else loss))
    message = str(error.value)
    assert f"the loss is {value} at step 5, learning rate {learning_rate(SETTINGS, 4):.3g};" in message
    assert f"last good checkpoint: {tmp_path / 'step-00000003'}." in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path: Path):
    zero_over_zero = Hooked(lambda _, calls, loss: (0 * loss).sqrt() if calls == 2 else loss)  # a loss of 0
    with pytest.raises(UserError, match=r"the weights are not finite after step 3, .* last good checkpoint: none yet"):
        run(new_state(), tmp_path, zero_over_zero)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------- device


@pytest.mark.parametrize(
    ("compute", "here", "said"),
    [
        ({"device": "cuda"}, 0, "asks for 1 GPU, but PyTorch finds none here: set compute.device to cpu"),
        ({"device": "auto", "gpus": 2}, 0, "asks for 2 GPUs, but PyTorch finds none here"),
        ({"device": "auto", "gpus": 8}, 4, "asks for 8 GPUs, but PyTorch finds 4 here: set compute.gpus to 4"),
        ({"device": "cuda", "gpus": 2}, 1, "asks for 2 GPUs, but PyTorch finds 1 here"),
    ],
)
def test_more_gpus_than_there_are_are_refused(compute: dict[str, Any], here: int, said: str):
    with pytest.raises(UserError, match=said):
        device_of(Compute(**compute), gpus_here=here)


def test_auto_is_the_gpu_where_there_is_one():
    assert device_of(Compute(device="auto"), gpus_here=0) == device_of(CPU) == torch.device("cpu")
    assert device_of(Compute(device="cpu", gpus=2), gpus_here=0) == torch.device("cpu")  # two processes
    assert device_of(Compute(device="auto"), gpus_here=1) == torch.device("cuda")
    assert device_of(Compute(device="cuda", gpus=2), gpus_here=2) == torch.device("cuda")


def test_configure_sets_threads_and_determinism(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        assert configure(Compute(device="cpu", threads=2)) == torch.device("cpu")
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode("default")


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="counts page faults as Linux does")
@pytest.mark.skipif(HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="pages are huge and few")
def test_memory_of_large_tensors_is_kept_for_the_next_ones() -> None:
    """Memory that was returned to the system costs a page fault for each 4 KiB when it is used again."""
    code = """if True:
        import resource, torch
        from entpruner.params.compute import Compute
        from entpruner.system.devices import configure
        configure(Compute(device="cpu"))
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            layers = [torch.zeros(2**19) for _ in range(8)]  # 2 MiB each
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(faults(), max([faults() for _ in range(20)][10:]))
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, later = map(int, found.stdout.split())
    assert first > 1000 > 100 > later


def test_on_a_cpu_only_products_are_in_bfloat16_and_only_if_asked() -> None:
    """Where the CPU lacks the instructions, PyTorch emulates them, so the numbers can be tried anywhere."""
    losses, types = {}, {}
    for half in (False, True):
        state, seen = new_state(), set()
        for block in state.model.blocks:
            block.mlp.fc1.register_forward_hook(lambda *call, seen=seen: seen.add(call[2].dtype))
        curve = run(state, None, compute=CPU.model_copy(update={"cpu_bf16": half}))
        losses[half], types[half] = [point["loss"] for point in curve], seen
        assert {tensor.dtype for _, tensor in state.named_tensors()} == {torch.float32}
    assert types == {False: {torch.float32}, True: {torch.bfloat16}}
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)


def test_a_cpu_that_would_emulate_bfloat16_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Compute(device="cpu", cpu_bf16=True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(UserError, match=r"^compute\.cpu_bf16: this CPU has no instructions for bfloat16 .* to false"):
        configure(asked)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert configure(asked).type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_gpu_it_trains_and_goes_on_from_a_checkpoint(tmp_path: Path):
    gpu = Compute(device="cuda", bf16=True)
    with pytest.raises(Kill):
        run(new_state(), tmp_path, killed_at(7), compute=gpu)
    state = new_state()
    curve = run(state, tmp_path, compute=gpu)
    assert [point["step"] for point in curve] == [4, 8, 9]
    assert all(tensor.is_cuda for _, tensor in state.named_tensors())
    assert all(moments["step"] == 9 for moments in state.moments.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("heads", [16, 6])  # of 72 and of 64 channels, as XL and S have
def test_in_bfloat16_attention_takes_the_flash_kernel(heads: int):
    size = {16: 1152, 6: 384}[heads]
    block = Block(size, heads, mlp_ratio=4).cuda()
    x, c = torch.randn(2, 256, size, device="cuda", requires_grad=True), torch.randn(2, size, device="cuda")
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), torch.autocast("cuda", torch.bfloat16):  # it, or an error
        out = block(x, c)
    assert out.dtype == torch.float32  # the residual stream stays
    torch.autograd.backward(out.sum())
