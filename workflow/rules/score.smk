# Block scores, by the criteria that arms and figures ask for.


rule score:
    input:
        unpack(inputs("score")),
    output:
        **outputs("score"),
    log:
        log_of("score"),
    cache: CACHED
    threads: asks("score", only="threads")
    resources:
        **asks("score"),
    params:
        **params("score"),
    message:
        "Scoring the blocks of {wildcards.backbone} on {wildcards.data} by {wildcards.scores} (seed {wildcards.seed})"
    shell:
        "entpruner rule score --settings {params.settings:q} {params.paths} &> {log}"
