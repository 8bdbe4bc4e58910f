# Samples of each arm, what they are worth, and what the network costs. The wildcard `cut` is empty after recovery,
# and "cut-" for the network right after the arm's last cut.


rule cut:
    input:
        unpack(inputs("cut")),
    output:
        **outputs("cut"),
    log:
        log_of("cut"),
    resources:
        **asks("cut"),
    params:
        **params("cut"),
    message:
        "Taking {wildcards.arm} as its last cut left it"
    shell:
        "entpruner rule cut --settings {params.settings:q} {params.paths} &> {log}"


rule sample:
    input:
        unpack(inputs("sample")),
    output:
        **outputs("sample"),
    log:
        log_of("sample"),
    cache: CACHED
    threads: asks("sample", only="threads")
    resources:
        **asks("sample"),
    params:
        **params("sample"),
    message:
        "Sampling from {wildcards.arm}"
    shell:
        "entpruner rule sample --settings {params.settings:q} {params.paths} &> {log}"


rule evaluate:
    input:
        unpack(inputs("evaluate")),
    output:
        **outputs("evaluate"),
    log:
        log_of("evaluate"),
    threads: asks("evaluate", only="threads")
    resources:
        **asks("evaluate"),
    params:
        **params("evaluate"),
    message:
        "Measuring the {wildcards.cut}samples of {wildcards.arm}"
    shell:
        "entpruner rule evaluate --settings {params.settings:q} {params.paths} &> {log}"


rule cost:
    input:
        unpack(inputs("cost")),
    output:
        **outputs("cost"),
    log:
        log_of("cost"),
    threads: all_cores
    resources:
        **asks("cost"),
    params:
        **params("cost"),
    message:
        "Timing {wildcards.backbone} on {wildcards.data} at every number of blocks"
    shell:
        "entpruner rule cost --settings {params.settings:q} {params.paths} &> {log}"
