"""A SLURM of one node on loopback, its GPUs pretended and all else real; only in the namespaces of tests/on_slurm."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ETC, RUN = Path("/etc/slurm"), Path("/run")  # where everything looks by itself: the executor's jobs drop SLURM_CONF
GPUS = ("/dev/zero", "/dev/full")  # devices that there are everywhere

SLURM_CONF = """
ClusterName=pretended
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
StateSaveLocation={folder}/slurmctld
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/slurmd
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/{accounting}
KillWait=10
ReturnToService=2
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:pretended:{gpus}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1440
PartitionName=gpu Nodes=ALL MaxTime=1440
"""
ACCOUNTING_CONF = "AccountingStorageTRES=gres/gpu\nAccountingStoreFlags=job_comment\n"
SLURMDBD_CONF = """
DbdHost=localhost
SlurmUser=root
AuthType=auth/munge
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=slurm
StoragePass=slurm
"""


@contextmanager
def cluster(folder: Path, *, accounting: bool) -> Iterator[None]:
    """Runs as long as the block; ``folder`` holds its state, and a log of each daemon."""
    configure(folder, accounting=accounting)
    with ExitStack() as daemons:

        def start(program: str, *arguments: str) -> None:
            log = daemons.enter_context((folder / f"{program}.log").open("w"))
            daemon = daemons.enter_context(subprocess.Popen([program, *arguments], stdout=log, stderr=log))
            daemons.callback(daemon.terminate)

        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = (f"--key-file={key}", f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed")
        start("munged", "--foreground", "--force", f"--log-file={folder}/munged.own.log", *files)
        wait_for("munge", "--no-input")
        if accounting:
            database, socket = f"--datadir={folder}/database", f"--socket={folder}/mariadb.socket"
            run("mariadb-install-db", "--no-defaults", database, "--user=root", "--skip-test-db")
            start("mariadbd", "--no-defaults", database, socket, "--user=root", "--bind-address=127.0.0.1")
            client = ("mariadb", "--no-defaults", socket)
            wait_for(*client, "--execute=SELECT 1")
            user = "CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON *.* TO slurm@localhost"
            run(*client, f"--execute={user}")
            start("slurmdbd", "-D")
            wait_for("sacctmgr", "--noheader", "list", "cluster")
        start("slurmctld", "-D")
        wait_for("scontrol", "ping")
        start("slurmd", "-D")
        wait_for("sh", "-c", "sinfo --noheader --format=%T | grep idle")
        yield


def configure(folder: Path, *, accounting: bool) -> None:
    for hidden in (ETC, RUN):
        run("mount", "-t", "tmpfs", "none", str(hidden))
    for made in (RUN / "munge", folder / "slurmctld", folder / "slurmd"):
        made.mkdir(parents=True)
    conf = SLURM_CONF.format(folder=folder, accounting="slurmdbd" if accounting else "none", gpus=len(GPUS))
    (ETC / "slurm.conf").write_text(conf + ACCOUNTING_CONF if accounting else conf)
    (ETC / "gres.conf").write_text("".join(f"Name=gpu Type=pretended File={device}\n" for device in GPUS))
    (ETC / "slurmdbd.conf").touch(mode=0o600)
    (ETC / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(folder=folder))


def run(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def wait_for(*command: str) -> None:
    """Until it succeeds."""
    until = time.monotonic() + 120
    while (asked := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < until, f"{command}: {asked.stdout}{asked.stderr}"
        time.sleep(0.2)
