# The audit: what score and proxies are worth. Not part of `all`: `snakemake --cores all audit`, or make audit.


rule audit:
    input:
        audit_report,
        page_with_audit(),


rule audit_regime:
    input:
        unpack(inputs("audit_regime")),
    output:
        **outputs("audit_regime"),
    log:
        log_of("audit_regime"),
    threads: asks("audit_regime", only="threads")
    resources:
        **asks("audit_regime"),
    params:
        **params("audit_regime"),
    message:
        "Choosing the audit's regime for {wildcards.backbone}"
    shell:
        "entpruner rule audit_regime --settings {params.settings:q} {params.paths} &> {log}"


rule audit_masks:
    input:
        unpack(inputs("audit_masks")),
    output:
        **outputs("audit_masks"),
    log:
        log_of("audit_masks"),
    threads: asks("audit_masks", only="threads")
    resources:
        **asks("audit_masks"),
    params:
        **params("audit_masks"),
    message:
        "Measuring sub-networks of {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_masks --settings {params.settings:q} {params.paths} &> {log}"


rule audit_scores:
    input:
        unpack(inputs("audit_scores")),
    output:
        **outputs("audit_scores"),
    log:
        log_of("audit_scores"),
    threads: asks("audit_scores", only="threads")
    resources:
        **asks("audit_scores"),
    params:
        **params("audit_scores"),
    message:
        "Scoring the blocks of {wildcards.backbone} by every audited criterion (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_scores --settings {params.settings:q} {params.paths} &> {log}"


rule audit_choices:
    input:
        unpack(inputs("audit_choices")),
    output:
        **outputs("audit_choices"),
    log:
        log_of("audit_choices"),
    threads: asks("audit_choices", only="threads")
    resources:
        **asks("audit_choices"),
    params:
        **params("audit_choices"),
    message:
        "Measuring the sets of blocks that the criteria choose in {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_choices --settings {params.settings:q} {params.paths} &> {log}"


rule audit_proxies:
    input:
        unpack(inputs("audit_proxies")),
    output:
        **outputs("audit_proxies"),
    log:
        log_of("audit_proxies"),
    threads: asks("audit_proxies", only="threads")
    resources:
        **asks("audit_proxies"),
    params:
        **params("audit_proxies"),
    message:
        "NTK and ZiCo of sub-networks of {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_proxies --settings {params.settings:q} {params.paths} &> {log}"


rule audit_schedules:
    input:
        unpack(inputs("audit_schedules")),
    output:
        **outputs("audit_schedules"),
    log:
        log_of("audit_schedules"),
    threads: asks("audit_schedules", only="threads")
    resources:
        **asks("audit_schedules"),
    params:
        **params("audit_schedules"),
    message:
        "Comparing schedules on {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_schedules --settings {params.settings:q} {params.paths} &> {log}"


rule audit_stability:
    input:
        unpack(inputs("audit_stability")),
    output:
        **outputs("audit_stability"),
    log:
        log_of("audit_stability"),
    threads: asks("audit_stability", only="threads")
    resources:
        **asks("audit_stability"),
    params:
        **params("audit_stability"),
    message:
        "Ranking the blocks of {wildcards.backbone} again and again (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_stability --settings {params.settings:q} {params.paths} &> {log}"


rule audit_stages:
    input:
        unpack(inputs("audit_stages")),
    output:
        **outputs("audit_stages"),
    log:
        log_of("audit_stages"),
    threads: asks("audit_stages", only="threads")
    resources:
        **asks("audit_stages"),
    params:
        **params("audit_stages"),
    message:
        "Following the pruning of {wildcards.backbone} from stage to stage (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_stages --settings {params.settings:q} {params.paths} &> {log}"


rule audit_outputs:
    input:
        unpack(inputs("audit_outputs")),
    output:
        **outputs("audit_outputs"),
    log:
        log_of("audit_outputs"),
    threads: asks("audit_outputs", only="threads")
    resources:
        **asks("audit_outputs"),
    params:
        **params("audit_outputs"),
    message:
        "How far from Gaussian the outputs of {wildcards.backbone} are (seed {wildcards.seed})"
    shell:
        "entpruner rule audit_outputs --settings {params.settings:q} {params.paths} &> {log}"


rule audit_report:
    input:
        unpack(inputs("audit_report")),
    output:
        **outputs("audit_report"),
    log:
        log_of("audit_report"),
    localrule: True
    resources:
        **asks("audit_report"),
    params:
        **params("audit_report"),
    message:
        "Writing what the audit found"
    shell:
        "entpruner rule audit_report --settings {params.settings:q} {params.paths} &> {log}"
