# What is downloaded, data sets as stores of pixels and of latents, and each one's own classifier.


rule download:
    output:
        **outputs("download"),
    log:
        log_of("download"),
    localrule: True
    params:
        settings=download_settings,
    message:
        "Downloading {output}; {log} says how far it is"
    shell:
        "entpruner rule download --settings {params.settings:q} --out {output:q} &> {log:q}"


rule data:
    input:
        unpack(inputs("data")),
    output:
        **outputs("data"),
    log:
        log_of("data"),
    cache: CACHED
    threads: asks("data", only="threads")
    resources:
        **asks("data"),
    params:
        **params("data"),
    message:
        "Preparing data set {wildcards.data}"
    shell:
        "entpruner rule data --settings {params.settings:q} {params.paths} --threads {threads} &> {log}"


rule autoencoder:
    output:
        **outputs("autoencoder"),
    log:
        log_of("autoencoder"),
    localrule: True
    params:
        **params("autoencoder"),
    message:
        "Fetching the autoencoder"
    shell:
        "entpruner rule autoencoder --settings {params.settings:q} {params.paths} &> {log}"


# All shards of a data set write to one file beside these, each to rows of its own.
rule latents_shard:
    input:
        unpack(inputs("latents_shard")),
    output:
        **{name: temp(file) for name, file in outputs("latents_shard").items()},
    log:
        log_of("latents_shard"),
    threads: asks("latents_shard", only="threads")
    resources:
        **asks("latents_shard"),
    params:
        **params("latents_shard"),
    message:
        "Encoding shard {wildcards.shard} of {wildcards.data}"
    shell:
        "entpruner rule latents_shard --settings {params.settings:q} {params.paths} &> {log}"


rule latents:
    input:
        unpack(inputs("latents")),
    output:
        **outputs("latents"),
    log:
        log_of("latents"),
    resources:
        **asks("latents"),
    params:
        **params("latents"),
    message:
        "Gathering the latents of {wildcards.data}"
    shell:
        "entpruner rule latents --settings {params.settings:q} {params.paths} &> {log}"


rule classifier:
    input:
        unpack(inputs("classifier")),
    output:
        **outputs("classifier"),
    log:
        log_of("classifier"),
    cache: CACHED
    threads: asks("classifier", only="threads")
    resources:
        **asks("classifier"),
    params:
        **params("classifier"),
    message:
        "Training the classifier of {wildcards.data}"
    shell:
        "entpruner rule classifier --settings {params.settings:q} {params.paths} &> {log}"
