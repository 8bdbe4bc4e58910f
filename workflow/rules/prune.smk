# Pruning stages: each decides how many blocks go, drops them and trains on. Then the recovery, which is the whole
# training of an unpruned arm.


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


rule recover:
    input:
        unpack(inputs("recover")),
    output:
        **outputs("recover"),
    log:
        log_of("recover"),
    cache: CACHED
    threads: asks("recover", only="threads")
    resources:
        **asks("recover"),
    params:
        **params("recover"),
    message:
        "Recovery of {wildcards.arm}"
    shell:
        "entpruner rule recover --settings {params.settings:q} {params.paths} &> {log}"
