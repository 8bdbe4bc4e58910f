"""The launcher of a command in several processes, which torchrun starts on this node, or on each node under srun."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from entpruner.errors import Stopped, UserError
from entpruner.system.temporary import temporary_folder

if TYPE_CHECKING:  # most commands run without this module, and its import takes time
    from entpruner.params.compute import Compute

WAIT = 60  # seconds that a process which lost another one waits until torchrun ends it
SAVING = 600  # seconds that all processes have to save their work after they were asked to stop
PORTS = range(20000, 60000)  # the nodes of a SLURM job meet at one of these ports, which follows from the job's number
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def together(work: Callable[[], None], arguments: Sequence[str], compute: "Compute") -> None:
    """Do ``work`` in this process, or start several processes that do it.

    They are started if ``compute`` asks for several and torchrun did not start this one. They run the command with
    these ``arguments``.
    """
    from entpruner.system import parallel

    if compute.processes > 1 and not parallel.started_by_torchrun():
        launch(arguments, compute)
        return
    try:
        work()
    except parallel.Parted:
        time.sleep(WAIT)  # torchrun soon ends this process, and reports the error of the process that ended first
        sys.exit(os.EX_UNAVAILABLE)
    except (Stopped, UserError):  # an exit while gloo's threads run can crash and print a message of its own
        parallel.leave()
        raise
    parallel.leave()


def launch(arguments: Sequence[str], compute: "Compute") -> None:
    """Run ``entpruner`` with these arguments in ``compute.gpus`` processes on each of ``compute.nodes`` nodes.

    In a SLURM job of several nodes, srun first starts this launcher on each node. The function returns when all
    processes have ended without an error. A signal is passed on to them and then ends this process too. Raises
    UserError with the message of the first process that failed, and if this node has too few GPUs.

    The processes of one node meet in files, and they listen on the loopback interface only. Several nodes meet over
    their network. PyTorch asks for no password there and encrypts nothing, so only trusted machines and users may reach
    that network.
    """
    if compute.nodes > 1 and in_batch_step(compute.nodes, os.environ):
        command = ["srun", f"--nodes={compute.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        os.execvp(command[0], [*command, sys.executable, "-m", "entpruner.cli", *arguments])

    # these imports take seconds, and a command of one process does not need them
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    from entpruner.system.devices import device_of

    torchrun: Callable[[Sequence[str]], None] = main
    device_of(compute)
    logging.disable()  # torchrun writes many lines where one line is enough
    with temporary_folder() as temporary:
        folder = str(temporary)
        options = meeting_point(compute.nodes, os.environ, folder)
        options += ["--nproc-per-node", str(compute.gpus), "--log-dir", folder]
        os.environ.setdefault("OMP_NUM_THREADS", str(compute.threads))
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVING))  # the default of PyTorch is 30 seconds
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
    """Whether this process is the script of a SLURM job, and not one of the tasks that srun starts on each node."""
    return "SLURM_JOB_ID" in environment and environment.get("SLURM_STEP_NUM_TASKS") != str(nodes)


def on_loopback(folder: str) -> dict[str, str]:
    """Environment variables by which the processes of one node meet in ``folder`` and listen on loopback only."""
    from entpruner.system.parallel import MEETING

    return {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # a server of torchrun that listens on all interfaces is not started
        MEETING: f"file://{folder}/processes",
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,  # for the first contact; data go through shared memory or links of GPUs
    }


def meeting_point(nodes: int, environment: Mapping[str, str], folder: str) -> list[str]:
    """The options that tell torchrun where the nodes meet. A single node uses a file in ``folder``.

    Raises UserError for several nodes if srun did not start this process.
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
    """Print the error. One of several processes gives it to torchrun instead, and the launcher prints it once."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
    else:
        print(f"entpruner: {error}", file=sys.stderr)
