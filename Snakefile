# EntPruner: params/*.yaml in, tables, figures and an MLflow view out. `snakemake --cores all` runs params/digits.yaml;
# `--configfile params/X.yaml` runs another study, or an ablation (a file without `study`) on top of the default one.
from snakemake.utils import min_version

min_version("9.20")


report: "workflow/report/workflow.rst"


include: "workflow/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/audit.smk"


if workflow.is_main_process and (missing := STUDY.absent()):
    logger.warning(f"not here yet: {', '.join(missing)}; put them there: what needs them fails until then")


# A job that goes on from where it was is started again more often than others: profiles say how often. While it reads
# this file, Snakemake has no such settings yet.
onstart:
    if not workflow.remote_execution_settings.preemptible_rules.rules:
        resumed = frozenset(name for name, rule in RULES.items() if rule.resumes)
        workflow.remote_execution_settings.preemptible_rules = PreemptibleRules(rules=resumed)
    # Whenever Snakemake has looked at the ready jobs, its limit on jobs a second sets a timer that makes it look again, so
    # that its work grows with the square of the jobs.
    workflow.scheduler.job_rate_limiter = None
    workflow.scheduler.error_callback = unless_disk_is_full(workflow.scheduler.error_callback)
    check_cluster()
    show_progress()


onsuccess:
    end_with(ending(STUDY, workflow.dag_settings.targets))


onerror:
    end_with(stopped(STUDY))


rule all:
    default_target: True
    input:
        everything(),
