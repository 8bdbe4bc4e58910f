# The glue between Snakemake and the package: the study, and what the record of each rule (entpruner/rules) says of a job.
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from snakemake.logging import logger
from snakemake.settings.types import PreemptibleRules

# The package of this checkout, which jobs run even where the commands of another one are installed. There is none where
# Snakemake fetched these files as a module: then the installed package is all there is.
CHECKOUT = str(Path(workflow.current_basedir.get_path_or_uri(secret_free=False)).parent)
ALREADY = os.environ.get("PYTHONPATH", "")
if os.path.isdir(f"{CHECKOUT}/entpruner"):
    sys.path.insert(0, CHECKOUT)
    if workflow.is_main_process and ALREADY.split(os.pathsep)[0] != CHECKOUT:
        asked = [sys.executable, "-P", "-c", "import entpruner; print(*entpruner.__path__)"]
        installed = os.path.dirname(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip())
        if installed != CHECKOUT:
            os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [CHECKOUT, ALREADY])))
            logger.warning(f"jobs run the code of {CHECKOUT}, not what is installed ({installed or 'nothing'})")

# No shell stays before a command to die of its signals; but another workflow's own rules may have several commands.
PROGRAMS = f'export PATH="{Path(sys.executable).parent}:$PATH"; '
EXEC = "exec " if workflow.modifier.is_main_snakefile() else ""
shell.prefix(PROGRAMS + EXEC)

from entpruner.errors import UserError
from entpruner.params.compute import Compute
from entpruner.params.files import check, over_default
from entpruner.planning.needs import Needs, needs, require_room
from entpruner.reporting.ending import ending, stopped
from entpruner.rules import RULES
from entpruner.rules.audit import audit_of
from entpruner.rules import rule as record
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.runs import begin_run, unless_disk_is_full, with_inputs_not_of_the_future
from entpruner.system.slurm import require_job_states
from entpruner.system.stopping import take_hangup_as_interrupt
from entpruner.system.study_line import StudyLine
from entpruner.system.temporary import move_out

if workflow.is_main_process:
    alive = begin_run()
    move_out()
    take_hangup_as_interrupt()

# Users' errors leave through sys.exit: a WorkflowError would put lines of this file around them.
try:
    merged, files = over_default(config, [Path(file) for file in workflow.configfiles])
    config.update(merged)
    STUDY = ResolvedStudy(check(config, files), files)
    STUDY.require_networks()
    require_room(STUDY)
except UserError as error:
    sys.exit(str(error))

# On how many GPUs and the like commands are told where Snakemake does not look: another answer reruns nothing.
if how := STUDY.params.compute.model_dump(include=Compute.AT_WILL, exclude_defaults=True):
    said = shlex.quote(json.dumps(how)).replace("{", "{{").replace("}", "}}")  # Snakemake formats it
    shell.prefix(f"{PROGRAMS}export ENTPRUNER_COMPUTE={said}; {EXEC}")

# Without a place for the cache, Snakemake would remark on every such rule at each start.
CACHED = "SNAKEMAKE_OUTPUT_CACHE" in os.environ

for folder in filter(os.path.exists, (STUDY.paths.root, "results", ".")):
    if not os.access(folder, os.W_OK):
        sys.exit(f"{folder} is read-only: make it writable, or run with --directory in a folder that is")


def check_cluster():
    """On SLURM, whether it is one that this can work with."""
    if workflow.executor_plugin.name == "slurm":
        given = workflow.executor_settings
        try:
            require_job_states(given.status_command, given.init_seconds_before_status_checks)
        except UserError as error:
            sys.exit(str(error))


def among(names):
    """A wildcard's pattern that only these names match."""
    return "|".join(map(re.escape, names)) or "none"


wildcard_constraints:
    download=among(STUDY.downloads),
    data=among(STUDY.params.datasets),
    backbone=among(STUDY.params.backbones),
    arm=among(STUDY.arms),
    seed=r"\d+",
    stage=r"[1-9]\d*",
    shard=r"\d+",
    cut="(cut-)?",
    table=among(STUDY.params.tables),
    figure=among(STUDY.params.figures),
    effects=among(STUDY.params.effects),


# ------------------------------------------------------------------------------------- what the record of a rule says


def asked_of(rule, question):
    """A function of a job's wildcards, by a question about the job that takes its rule's record, the study and the job."""
    return lambda wildcards: question(RULES[rule], STUDY, record.Job.of(rule, dict(wildcards.items())))


def inputs(rule):
    return asked_of(rule, record.Rule.files_in)


def outputs(rule):
    return RULES[rule].files_out(STUDY.paths)


def log_of(rule):
    return str(STUDY.paths.log(next(iter(RULES[rule].outputs(STUDY.paths).values()))))


def settings_of(rule, study, job):
    return rule.settings(study, job).model_dump_json()


def paths_of(rule, study, job):
    options = rule.options(study, job).items()
    return shlex.join(word for option, paths in options for word in (f"--{option}", *paths))


def params(rule):
    """What Snakemake compares to see whether a job must run again: settings, code and paths."""
    return {
        "settings": asked_of(rule, settings_of),
        "code": asked_of(rule, record.Rule.code),
        "paths": asked_of(rule, paths_of),
    }


@cache
def needs_of(job):
    return needs(STUDY, job)


def asks(rule, *, only=None):
    """What a job asks a machine for, by name: all but the threads, or one of these."""
    asked = {
        what: asked_of(rule, lambda _, study, job, what=what: getattr(needs_of(job), what)) for what in Needs._fields
    }
    return asked.pop(only) if only else {what: ask for what, ask in asked.items() if what != "threads"}


def all_cores(wildcards):
    """How many there are is asked when a job is planned: a picture of the rules and a report need none."""
    return workflow.cores


# ------------------------------------------------------------------------------------------------------------ targets


def download_settings(wildcards, output):
    """The checksum is in the file's name: as this takes ``output``, Snakemake fetches nothing anew for another url."""
    return asked_of("download", settings_of)(wildcards)


def caption_of(wildcards):
    ((kind, name),) = wildcards.items()
    params = STUDY.params
    return {"table": params.tables, "figure": params.figures, "effects": params.effects}[kind][name].caption


def kind_of(wildcards):
    return STUDY.params.figures[wildcards.figure].kind


def everything():
    """All tables, figures and effects, the page that tells their story, and MLflow's view of them."""
    tables = [str(STUDY.paths.table(table).files["md"]) for table in STUDY.params.tables]
    figures = [str(STUDY.paths.figure(figure).files["png"]) for figure in STUDY.params.figures]
    effects = [str(STUDY.paths.effects(name).files["md"]) for name in STUDY.params.effects]
    pages = [str(STUDY.paths.story().path)] if tables else []
    return [*tables, *figures, *effects, *pages, str(STUDY.paths.tracking().path)]


def audit_report(wildcards):
    try:
        audit_of(STUDY)
    except UserError as error:
        sys.exit(str(error))
    return str(STUDY.paths.audit_report().path)


def page_with_audit():
    """The study's page, if there is one: the audit becomes a part of it."""
    return [str(STUDY.paths.story().path)] if STUDY.paths.story().path.exists() else []


def audit_of_page(wildcards):
    """The audit's report, if this run makes it. One that is there is named by the record of the page."""
    made = STUDY.paths.audit_report().path
    return [str(made)] if "audit" in workflow.dag_settings.targets and not made.exists() else []
