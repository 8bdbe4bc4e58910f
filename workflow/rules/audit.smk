# The audit: what score and proxies are worth. Not part of `all`: `snakemake --cores all audit`, or make audit.


rule audit:
    input:
        audit_report,


rule audit_regime:
    input:
        unpack(audit_start),
        unpack(audit_images),
        store=audit_store,
    output:
        f"{RESULTS}/audit/regime/{{backbone}}.json",
    log:
        f"{LOGS}/audit/regime-{{backbone}}.log",
    threads: asked("audit_regime", "threads")
    resources:
        **asks("audit_regime"),
    params:
        settings=audit_regime_settings,
        code=code("audit_regime"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        images=audit_images_options,
    message:
        "Choosing the audit's regime for {wildcards.backbone}"
    shell:
        "entpruner audit_regime --settings {params.settings:q} --store {params.store} --init {params.init} {params.images} --out {output} &> {log}"


rule audit_masks:
    input:
        unpack(audit_start),
        unpack(audit_images),
        store=audit_store,
        regime=f"{RESULTS}/audit/regime/{{backbone}}.json",
    output:
        f"{RESULTS}/audit/masks/{{backbone}}-s{{seed}}.json",
    log:
        f"{LOGS}/audit/masks-{{backbone}}-s{{seed}}.log",
    threads: asked("audit_masks", "threads")
    resources:
        **asks("audit_masks"),
    params:
        settings=audit_masks_settings,
        code=code("audit_masks"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        images=audit_images_options,
    message:
        "Measuring sub-networks of {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner audit_masks --settings {params.settings:q} --store {params.store} --init {params.init} {params.images} --regime {input.regime} --out {output} &> {log}"


rule audit_scores:
    input:
        unpack(audit_start),
        store=audit_store,
        regime=f"{RESULTS}/audit/regime/{{backbone}}.json",
    output:
        f"{RESULTS}/audit/scores/{{backbone}}-s{{seed}}.json",
    log:
        f"{LOGS}/audit/scores-{{backbone}}-s{{seed}}.log",
    threads: asked("audit_scores", "threads")
    resources:
        **asks("audit_scores"),
    params:
        settings=audit_scores_settings,
        code=code("audit_scores"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
    message:
        "Scoring the blocks of {wildcards.backbone} by every audited criterion (seed {wildcards.seed})"
    shell:
        "entpruner audit_scores --settings {params.settings:q} --store {params.store} --init {params.init} --regime {input.regime} --out {output} &> {log}"


rule audit_choices:
    input:
        unpack(audit_start),
        unpack(audit_images),
        store=audit_store,
        scores=f"{RESULTS}/audit/scores/{{backbone}}-s{{seed}}.json",
    output:
        f"{RESULTS}/audit/choices/{{backbone}}-s{{seed}}.json",
    log:
        f"{LOGS}/audit/choices-{{backbone}}-s{{seed}}.log",
    threads: asked("audit_choices", "threads")
    resources:
        **asks("audit_choices"),
    params:
        settings=audit_bench_settings,
        code=code("audit_choices"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        images=audit_images_options,
    message:
        "Measuring the sets of blocks that the criteria choose in {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner audit_choices --settings {params.settings:q} --store {params.store} --init {params.init} {params.images} --scores {input.scores} --out {output} &> {log}"


rule audit_proxies:
    input:
        unpack(audit_start),
        store=audit_store,
        masks=f"{RESULTS}/audit/masks/{{backbone}}-s{{seed}}.json",
    output:
        f"{RESULTS}/audit/proxies/{{backbone}}-s{{seed}}.json",
    log:
        f"{LOGS}/audit/proxies-{{backbone}}-s{{seed}}.log",
    threads: asked("audit_proxies", "threads")
    resources:
        **asks("audit_proxies"),
    params:
        settings=audit_proxies_settings,
        code=code("audit_proxies"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
    message:
        "NTK and ZiCo of sub-networks of {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner audit_proxies --settings {params.settings:q} --store {params.store} --init {params.init} --masks {input.masks} --out {output} &> {log}"


rule audit_schedules:
    input:
        unpack(audit_start),
        unpack(audit_images),
        store=audit_store,
        regime=f"{RESULTS}/audit/regime/{{backbone}}.json",
    output:
        f"{RESULTS}/audit/schedules/{{backbone}}-s{{seed}}.json",
    log:
        f"{LOGS}/audit/schedules-{{backbone}}-s{{seed}}.log",
    threads: asked("audit_schedules", "threads")
    resources:
        **asks("audit_schedules"),
    params:
        settings=audit_schedules_settings,
        code=code("audit_schedules"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        images=audit_images_options,
    message:
        "Comparing schedules on {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner audit_schedules --settings {params.settings:q} --store {params.store} --init {params.init} {params.images} --regime {input.regime} --out {output} &> {log}"


rule audit_stability:
    input:
        unpack(audit_start),
        store=audit_store,
        upstream=audit_upstream,
        pretrained=audit_pretrained,
    output:
        f"{RESULTS}/audit/stability/{{backbone}}-s{{seed}}.json",
    log:
        f"{LOGS}/audit/stability-{{backbone}}-s{{seed}}.log",
    threads: asked("audit_stability", "threads")
    resources:
        **asks("audit_stability"),
    params:
        settings=audit_stability_settings,
        code=code("audit_stability"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        upstream=subpath(input.upstream, parent=True),
        pretrained=subpath(input.pretrained, parent=True),
    message:
        "Ranking the blocks of {wildcards.backbone} again and again (seed {wildcards.seed})"
    shell:
        "entpruner audit_stability --settings {params.settings:q} --store {params.store} --init {params.init} --upstream {params.upstream} --pretrained {params.pretrained} --out {output} &> {log}"


rule audit_report:
    input:
        evidence=audit_evidence,
        claims=audit_claim_files,
        reference=workflow.source_path("../../params/reference.yaml"),
    output:
        f"{RESULTS}/audit/README.md",
    log:
        f"{LOGS}/audit/report.log",
    localrule: True
    resources:
        **asks("audit_report"),
    params:
        settings=audit_report_settings,
        code=code("audit_report"),
        results=subpath(output[0], ancestor=2),
    message:
        "Writing what the audit found"
    shell:
        "entpruner audit_report --settings {params.settings:q} --results {params.results} --reference {input.reference} --out {output} &> {log}"
