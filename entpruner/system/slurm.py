"""A check that Snakemake can learn from this SLURM how its jobs end. If it cannot, it waits for ever."""

import shutil
import subprocess

from entpruner.errors import UserError


def require_job_states(status_command: str | None, interval: int) -> None:
    """Refuse a cluster that forgets its jobs before Snakemake asks how they ended.

    ``status_command`` (None: the executor chooses) and ``interval``, the seconds between two questions, are options of
    Snakemake's executor. The executor asks squeue if it is told to and if squeue remembers jobs for three intervals
    after their end. Otherwise it asks sacct.

    Raises UserError, which says what to do, if neither squeue nor sacct can answer.
    """
    from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age

    remembered = get_min_job_age() or 0
    squeue_serves = remembered >= 3 * interval
    installed = shutil.which("sacct") is not None
    if squeue_serves and (status_command == "squeue" or not installed):
        return
    problem = complaint_of_sacct() if installed else "not installed"
    if problem is None:
        return
    if squeue_serves:
        remedy = "add --slurm-status-command squeue"
    else:
        remedy = (
            f"squeue forgets jobs {remembered} s after their end (MinJobAge), and is asked after {interval} s: add "
            f"--slurm-status-command squeue --slurm-init-seconds-before-status-checks {max(remembered // 3, 1)}"
        )
    raise UserError(f"SLURM can't tell how jobs end, and none was submitted (sacct: {problem}): {remedy}")


def complaint_of_sacct() -> str | None:
    """The first line of sacct's error, or None if sacct answers."""
    command = ["sacct", "--noheader", "--format=JobID", "--name=entpruner"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "no answer in a minute"
    if asked.returncode == 0:
        return None
    lines = (asked.stderr or asked.stdout).split("\n")
    return lines[0].removeprefix("sacct: error: ").strip() or f"exit code {asked.returncode}"
