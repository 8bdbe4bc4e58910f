"""Several processes, gloo's on the CPU: the results of one, to rounding in training and to the bit in sampling."""

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torch._dynamo
import torch.distributed.fsdp  # these two here, so that not each fork takes seconds for them
from hypothesis import given
from hypothesis import strategies as st
from processes import in_processes
from small_training import (
    CPU,
    FLOW,
    SETTINGS,
    Hooked,
    Kill,
    bits,
    close,
    in_float64,
    killed_at,
    new_state,
    new_state_in_float64,
    run,
)
from snakemake_runs import ROOT, environment, job
from torch import Tensor

from entpruner.cli import main
from entpruner.commands import sample
from entpruner.data.writing import write_store
from entpruner.errors import Stopped, UserError
from entpruner.evaluation.extractors import FeatureNet
from entpruner.models.checkpoints import load_model
from entpruner.models.network import BlockNetwork
from entpruner.params.compute import Compute
from entpruner.params.training import Distillation, Finetuning
from entpruner.rules.evaluate import SampleSettings
from entpruner.system import parallel
from entpruner.system.files import read_json
from entpruner.system.launch import in_batch_step, meeting_point
from entpruner.system.randomness import generator
from entpruner.training.distill import distilled
from entpruner.training.objective import Objective
from entpruner.training.peft import prepare
from entpruner.training.state import TrainState


def loaded(folder: Path, like: TrainState) -> TrainState:
    """What a process left in ``folder``."""
    like.ema.load_state_dict(torch.load(folder / "ema.pt", weights_only=True))
    return TrainState.load(folder, like.ema)


def trained(folder: Path, state: TrainState, **options: Any) -> TrainState:
    """Train, and leave the state in ``folder`` if this is the first process. All that hold it hold the same bits."""
    curve = run(state, folder / "resume", **options)
    if options.get("compute", CPU).sharding == "none":
        for tensor in state.all_tensors().values():
            firsts = tensor.clone()
            parallel.copied_from_first([firsts])
            assert torch.equal(firsts, tensor)
    if parallel.is_first():
        folder.mkdir(exist_ok=True)
        state.save(folder)
        torch.save(state.ema.state_dict(), folder / "ema.pt")
        (folder / "losses.json").write_text(json.dumps([point["loss"] for point in curve]))
    return state


def pruned_with_a_teacher() -> tuple[TrainState, Objective]:
    teacher = new_state_in_float64().model

    def objective(model: BlockNetwork, x: Tensor, noise: Tensor, t: Tensor, y: Tensor) -> Tensor:
        learned = distilled(FLOW, teacher, Distillation(features=0.5))
        return learned(model, x.double(), noise.double(), t, y)

    return new_state_in_float64().drop_blocks({1}), objective


def with_lora() -> tuple[TrainState, Objective]:
    model = new_state_in_float64().model
    prepare(model, Finetuning(steps=9, method="lora"), generator(0, "method"))
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.3, generator=generator(0, name))
    return TrainState.start(model), in_float64


CASES = {"every weight": lambda: (new_state_in_float64(), in_float64),
         "pruned, with a teacher": pruned_with_a_teacher, "LoRA": with_lora}  # fmt: skip


@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.parametrize("case", CASES)
def test_a_batch_that_two_processes_share_trains_as_in_one(tmp_path: Path, case: str, sharding: str) -> None:
    state, objective = CASES[case]()
    trained(tmp_path / "one", state, objective=objective)

    def in_each() -> None:
        state, objective = CASES[case]()
        micro_batch = None if "teacher" in case else 1
        compute = Compute(device="cpu", gpus=2, micro_batch=micro_batch, sharding=sharding)
        trained(tmp_path / "two", state, objective=objective, compute=compute)

    in_processes(2, in_each)
    close(loaded(tmp_path / "two", CASES[case]()[0]), state)
    one, two = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-9)


SHARED = Compute(device="cpu", sharding="full")  # a single process holds all of it anyhow


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_killed_run_goes_on_in_another_number_of_processes(tmp_path: Path, before: int, after: int) -> None:
    whole = trained(tmp_path / "whole", new_state_in_float64(), objective=in_float64)

    def killed() -> None:
        with pytest.raises(Kill):
            trained(tmp_path / "parts", new_state_in_float64(), objective=killed_at(7, in_float64), compute=SHARED)

    def finished() -> None:
        seen: list[int] = []

        def objective(*batch: Any) -> Tensor:
            seen.append(len(batch[1]))
            return in_float64(*batch)

        trained(tmp_path / "parts", new_state_in_float64(), objective=objective, compute=SHARED)
        assert seen == [4 // after] * 3  # from the checkpoint after step 6

    in_processes(before, killed)
    assert len(list((tmp_path / "parts/resume/step-00000006").glob("*.safetensors"))) == before
    in_processes(after, finished)
    close(loaded(tmp_path / "parts", new_state_in_float64()), whole)


SIX_AT_ONCE = SETTINGS.model_copy(update={"batch_size": 6})


@pytest.mark.parametrize(("count", "sharding"), [(2, "none"), (3, "none"), (2, "full")])
def test_one_process_is_killed_and_all_go_on_to_the_same_bits(tmp_path: Path, count: int, sharding: str) -> None:
    options = {"compute": Compute(device="cpu", gpus=count, sharding=sharding), "settings": SIX_AT_ONCE}

    def die(_: BlockNetwork, calls: int, __: Tensor) -> None:
        if calls == 8 and parallel.rank() == 1:
            os._exit(0)

    def killed() -> None:
        with pytest.raises(parallel.Parted):
            trained(tmp_path / "parts", new_state(), objective=Hooked(die), **options)

    in_processes(count, killed)
    assert [path.name for path in (tmp_path / "parts/resume").iterdir()] == ["step-00000006"]
    in_processes(count, lambda: trained(tmp_path / "parts", new_state(), **options))
    in_processes(count, lambda: trained(tmp_path / "whole", new_state(), **options))
    parts, whole = (loaded(tmp_path / name, new_state()) for name in ("parts", "whole"))
    assert bits(parts) == bits(whole)


def test_asked_to_stop_in_one_process_all_stop_at_the_same_step(tmp_path: Path) -> None:
    def ask(_: BlockNetwork, calls: int, __: Tensor) -> None:
        if calls == 5 and not parallel.is_first():  # the first call is that by which the buckets are chosen
            signal.raise_signal(signal.SIGTERM)

    def asked() -> None:
        state = new_state_in_float64()
        with pytest.raises(Stopped, match=r"saved .*step-00000005: run the same command again"):
            trained(tmp_path, state, objective=Hooked(ask, in_float64))
        assert state.step == 5

    in_processes(2, asked)
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step-00000005"]


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    def refused() -> None:
        with pytest.raises(UserError, match="3 processes can't share a batch of 4 evenly"):
            trained(tmp_path, new_state_in_float64(), objective=in_float64)

    in_processes(3, refused)


@given(share=st.integers(1, 9), count=st.integers(1, 5), micro_batch=st.none() | st.integers(1, 20))
def test_every_row_of_a_batch_is_computed_once(share: int, count: int, micro_batch: int | None) -> None:
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "count", lambda: count)
        for rank in range(count):
            patch.setattr(parallel, "rank", lambda rank=rank: rank)
            pieces = parallel.rows_of(share * count, micro_batch)
            assert all(piece.stop - piece.start <= (micro_batch or share) for piece in pieces)
            rows += [row for piece in pieces for row in range(piece.start, piece.stop)]
    assert rows == list(range(share * count))


def test_features_from_several_processes_are_those_of_one_to_the_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (17, 1, 4, 4), dtype=np.uint8)
    weights = torch.randn(16, 5, generator=generator(0))
    device = torch.device("cpu")
    net = FeatureNet("net", "torchvision", lambda x: x.float().flatten(1) @ weights, device, batch_size=4)
    alone = net.features(images)

    def shared() -> None:
        features = net.features(images)
        assert torch.equal(features, alone) if parallel.is_first() else not len(features)

    for count in (2, 3):
        in_processes(count, shared)


# ------------------------------------------------------------------------------------------------------- the commands


def started(arguments: list[str], folder: Path = ROOT, **more: str) -> Process:
    """A fork with a command, which starts processes; ``folder`` comes first on their path."""

    def command() -> None:
        given = environment(folder) | {"PYTHONPATH": f"{folder}:{ROOT}"} | more
        os.environ.clear()
        os.environ.update(given)
        sys.exit(main(arguments))

    process = get_context("fork").Process(target=command)
    process.start()
    return process


def addresses(process: Process) -> set[str]:
    """Where it, and those that it starts, listen for TCP connections, as long as it runs."""
    found = set()
    while process.is_alive():
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(process.pid)
            for each in (whole, *whole.children(recursive=True)):
                found |= {s.laddr.ip for s in each.net_connections("tcp") if s.status == psutil.CONN_LISTEN}
        time.sleep(0.1)  # they listen as long as they live
    return found


BACKBONE = {"process": {"kind": "flow"}, "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
TRAINING = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 2}
PRETRAIN = {"artefact": "pretrain/sit", "seed": 0, "backbone": BACKBONE, "training": TRAINING, "stop": 4}
SAMPLE = {"seed": 0, "sampling": {"samples": 10, "batch_size": 4, "flow": {"name": "euler", "steps": 2}}}
ONE, TWO = {"device": "cpu"}, {"device": "cpu", "gpus": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, process_settings: None) -> Path:
    """A store, a network that one process trained, and its samples."""
    root = tmp_path_factory.mktemp("root")
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8), np.arange(20) % 2
    write_store(root / "store", {"train": (pixels, labels)}, ["a", "b"], {})
    assert main(job("pretrain", PRETRAIN | {"compute": ONE}, store=root / "store", out=root / "model")) == 0
    assert main(job("sample", SAMPLE | {"compute": ONE}, init=root / "model", out=root / "samples")) == 0
    return root


@pytest.fixture(scope="module")
def in_two(root: Path) -> tuple[Path, set[str]]:
    """The folder of a network that two processes trained, and the addresses at which they listened meanwhile."""
    folder = root / "two"
    asked = job("pretrain", PRETRAIN | {"compute": TWO}, store=root / "store", out=folder / "model")
    elsewhere = socket.if_nameindex()[-1][1]  # a card that a cluster may have all processes use
    process = started(asked, GLOO_SOCKET_IFNAME=elsewhere)
    found = addresses(process)
    assert process.exitcode == 0
    return folder, found


def test_two_processes_train_a_network_that_one_of_them_writes(root: Path, in_two: tuple[Path, set[str]]) -> None:
    folder, _ = in_two
    (one, card), (two, same) = load_model(root / "model"), load_model(folder / "model")
    assert card == same
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], tensor, rtol=0, atol=1e-4, msg=name)  # of 4 steps of 1e-3
    assert read_json(folder / "model/timing.json")["processes"] == 2
    assert [path.name for path in folder.iterdir()] == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only root sees at which addresses a process listens")
def test_the_processes_of_one_node_listen_on_loopback_alone(in_two: tuple[Path, set[str]]) -> None:
    _, found = in_two
    assert found and found <= {"127.0.0.1", "::1"}


def test_two_processes_sample_the_same_bytes_as_one(root: Path, tmp_path: Path) -> None:
    def share() -> None:
        settings = SampleSettings(**SAMPLE, compute=TWO)
        sample.run(settings, init=root / "model", autoencoder=None, latents=None, out=tmp_path / "samples")

    in_processes(2, share)
    for file in ("images.npy", "labels.npy", "manifest.json", "grid.png"):
        assert (tmp_path / "samples" / file).read_bytes() == (root / "samples" / file).read_bytes()


def test_an_error_in_one_process_ends_all_in_one_line(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom entpruner.errors import UserError\nfrom entpruner.training import loop\n"
        "def refuse(*_): raise UserError('the second process does not like it')\n"
        "if os.environ.get('RANK') == '1': loop.draw_batch = refuse\n"
    )
    out = tmp_path / "model"
    asked = job("pretrain", PRETRAIN | {"compute": TWO}, store=root / "store", out=out)
    process = started(asked, folder=tmp_path)
    process.join()
    said = "entpruner: the second process does not like it\n"
    assert (process.exitcode, *capfd.readouterr()) == (1, "", said)
    assert not out.exists()


def test_more_gpus_than_there_are_are_refused_in_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.device_count() >= 64:
        pytest.skip("a machine with 64 GPUs")
    settings = PRETRAIN | {"compute": {"device": "auto", "gpus": 64}}
    assert main(job("pretrain", settings, store=root / "store", out=tmp_path / "model")) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("entpruner: compute asks for 64 GPUs, but PyTorch finds ")


def test_nodes_meet_at_the_first_by_the_number_of_their_job() -> None:
    slurm = {"SLURM_JOB_ID": "1234", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    assert meeting_point(2, slurm, "folder")[-1] == "10.0.0.7:21234"
    assert in_batch_step(2, slurm) and not in_batch_step(2, slurm | {"SLURM_STEP_NUM_TASKS": "2"})
    with pytest.raises(UserError, match="SLURM_JOB_ID is not set: start the command with srun"):
        meeting_point(2, {}, "folder")
