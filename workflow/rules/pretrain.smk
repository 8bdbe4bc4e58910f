# Backbones: trained from nothing on the upstream data, or taken from a checkpoint, then moved to other data.


rule pretrain:
    input:
        unpack(inputs("pretrain")),
    output:
        **outputs("pretrain"),
    log:
        log_of("pretrain"),
    wildcard_constraints:
        backbone=among(STUDY.imported(from_checkpoint=False)),
    cache: CACHED
    threads: asks("pretrain", only="threads")
    resources:
        **asks("pretrain"),
    params:
        **params("pretrain"),
    message:
        "Pre-training {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner rule pretrain --settings {params.settings:q} {params.paths} &> {log}"


rule import_checkpoint:
    input:
        unpack(inputs("import_checkpoint")),
    output:
        **outputs("import_checkpoint"),
    log:
        log_of("import_checkpoint"),
    wildcard_constraints:
        backbone=among(STUDY.imported(from_checkpoint=True)),
    cache: CACHED
    resources:
        **asks("import_checkpoint"),
    params:
        **params("import_checkpoint"),
    message:
        "Importing {wildcards.backbone}"
    shell:
        "entpruner rule import_checkpoint --settings {params.settings:q} {params.paths} &> {log}"


rule adapt:
    input:
        unpack(inputs("adapt")),
    output:
        **outputs("adapt"),
    log:
        log_of("adapt"),
    cache: CACHED
    threads: asks("adapt", only="threads")
    resources:
        **asks("adapt"),
    params:
        **params("adapt"),
    message:
        "Adapting {wildcards.backbone} to {wildcards.data} (seed {wildcards.seed})"
    shell:
        "entpruner rule adapt --settings {params.settings:q} {params.paths} &> {log}"
