"""A command in several processes, as ``torchrun`` starts them: on this node, or on each of several under ``srun``."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from entpruner.errors import Stopped, UserError

if TYPE_CHECKING:  # a command that the warm process runs needs none of it here
    from entpruner.params.compute import Compute

WAIT, SAVING = 60, 600  # seconds: until a process that lost another is ended; that all have to save, asked to stop
PORTS = range(20000, 60000)  # the nodes of a job meet at one of these, by its number
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def together(work: Callable[[], None], arguments: Sequence[str], compute: "Compute") -> None:
    """Do ``work``; or, where ``compute`` asks for several processes and this isn't one of them, run the command in
    these, whose arguments are ``arguments``.
    """
    from entpruner.system import parallel

    if compute.processes > 1 and not parallel.started_by_torchrun():
        launch(arguments, compute)
        return
    try:
        work()
    except parallel.Parted:
        time.sleep(WAIT)  # torchrun ends this process when it has seen the other's end, whose error is the one to say
        sys.exit(os.EX_UNAVAILABLE)
    except (Stopped, UserError):  # an exit beside gloo's threads can end in std::terminate, and a line of its own
        parallel.leave()
        raise
    parallel.leave()


def launch(arguments: Sequence[str], compute: "Compute") -> None:
    """Run ``entpruner`` with these arguments in ``compute.gpus`` processes here, of ``compute.nodes`` times as many.

    In a SLURM job of several nodes a task on each of them does so. Returns when all have ended well. A signal is passed
    on to them, and ends this process too. Raises UserError with the message of the first process that failed with one,
    and for more GPUs than there are here.

    On one node nothing listens beyond loopback, and the processes meet in files. Several nodes meet over their network,
    where PyTorch asks nobody for a password and encrypts nothing: only trusted machines and users may reach it.
    """
    if compute.nodes > 1 and in_batch_step(compute.nodes, os.environ):
        command = ["srun", f"--nodes={compute.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        os.execvp(command[0], [*command, sys.executable, "-m", "entpruner.cli", *arguments])

    # seconds of imports, which a command of one process does without
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    from entpruner.system.devices import device_of

    torchrun: Callable[[Sequence[str]], None] = main
    device_of(compute)
    logging.disable()  # torchrun tells at length what one line can say
    with TemporaryDirectory(prefix="entpruner-") as folder:  # closed to other users
        options = meeting_point(compute.nodes, os.environ, folder)
        options += ["--nproc-per-node", str(compute.gpus), "--log-dir", folder]
        os.environ.setdefault("OMP_NUM_THREADS", str(compute.threads))
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVING))  # PyTorch 2.11 gives them 30
        if compute.nodes == 1:
            os.environ |= on_loopback(folder)
        try:
            torchrun([*options, "-m", "entpruner.cli", *arguments])
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            message: Any = failure.message
            said = message["message"] if isinstance(message, dict) else ""
            for kind in (UserError, Stopped):
                if said.startswith(f"{kind.__name__}: "):
                    raise kind(said.removeprefix(f"{kind.__name__}: ")) from None
            how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
            raise UserError(
                f"process {rank} of {compute.processes} ended with {how}, and the others with it: see above, and run "
                "the command again"
            ) from None
        except SignalException as error:
            number = error.sigval
        else:
            return
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def in_batch_step(nodes: int, environment: Mapping[str, str]) -> bool:
    """Whether this is the one script of a SLURM job, and not yet one of the tasks that it starts on each node."""
    return "SLURM_JOB_ID" in environment and environment.get("SLURM_STEP_NUM_TASKS") != str(nodes)


def on_loopback(folder: str) -> dict[str, str]:
    """What tells PyTorch's processes on one node to meet in ``folder``, and to listen to each other alone."""
    from entpruner.system.parallel import MEETING

    return {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # torchrun's own server, which would listen everywhere
        MEETING: f"file://{folder}/processes",
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,  # for the first contact: then the GPUs' own links, or shared memory
    }


def meeting_point(nodes: int, environment: Mapping[str, str], folder: str) -> list[str]:
    """torchrun's options for where it finds those of the other nodes: for a single one, a file in ``folder``.

    Raises UserError for several nodes without ``srun``.
    """
    if nodes == 1:
        return ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint", f"{folder}/nodes"]
    try:
        job, host = environment["SLURM_JOB_ID"], environment["SLURM_LAUNCH_NODE_IPADDR"]
    except KeyError as error:
        raise UserError(
            f"compute.nodes is {nodes}, but {error.args[0]} is not set: start the command with srun, one task a node, "
            "or with torchrun on each node"
        ) from None
    port = PORTS[int(job) % len(PORTS)]
    return ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-id", job, "--rdzv-endpoint", f"{host}:{port}"]


def report(error: UserError | Stopped) -> None:
    """Say it; in one of several processes to torchrun, so that the launcher says it once for all."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
    else:
        print(f"entpruner: {error}", file=sys.stderr)
