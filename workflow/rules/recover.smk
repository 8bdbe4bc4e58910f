# Recovery: the training after the last pruning, and the whole training of an unpruned arm.


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
