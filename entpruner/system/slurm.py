"""Whether Snakemake can learn from this SLURM how its jobs end: where it can't, it would wait for ever."""

import shutil
import subprocess

from entpruner.errors import UserError


def require_job_states(status_command: str | None, interval: int) -> None:
    """Refuse a cluster that forgets its jobs before Snakemake asks for them.

    The executor is set to ``status_command`` (None: what it finds) and ``interval``, in seconds between two questions.
    It asks squeue if told to, and if that remembers jobs for three intervals after their end; else sacct.

    Raises UserError with what to do if both are of no use.
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
    """What sacct says instead of an answer; None if it answers."""
    command = ["sacct", "--noheader", "--format=JobID", "--name=entpruner"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "no answer in a minute"
    if asked.returncode == 0:
        return None
    lines = (asked.stderr or asked.stdout).split("\n")
    return lines[0].removeprefix("sacct: error: ").strip() or f"exit code {asked.returncode}"
