# Pruning stages: each decides how many blocks go, drops them and trains on.


rule prune:
    input:
        unpack(inputs("prune")),
    output:
        **outputs("prune"),
    log:
        log_of("prune"),
    cache: CACHED
    threads: asks("prune", only="threads")
    resources:
        **asks("prune"),
    params:
        **params("prune"),
    message:
        "Stage {wildcards.stage} of {wildcards.arm}"
    shell:
        "entpruner rule prune --settings {params.settings:q} {params.paths} &> {log}"
