# What is downloaded, data sets as stores of pixels and of latents, and each one's own classifier.


rule download:
    output:
        "{download}",
    log:
        f"{LOGS}/{{download}}.log",
    localrule: True
    params:
        settings=download_settings,
    message:
        "Downloading {output}; how far it is stands in {log}"
    shell:
        "entpruner download --settings {params.settings:q} --out {output:q} &> {log:q}"


rule data:
    input:
        data_downloads,
    output:
        manifest=f"{RESULTS}/data/{{data}}/manifest.json",
        images=f"{RESULTS}/data/{{data}}/images.npy",
        labels=f"{RESULTS}/data/{{data}}/labels.npy",
    log:
        f"{LOGS}/data/{{data}}.log",
    cache: CACHED
    threads: asked("data", "threads")
    resources:
        **asks("data"),
    params:
        settings=data_settings,
        code=code("data"),
        out=subpath(output.manifest, parent=True),
    message:
        "Preparing data set {wildcards.data}"
    shell:
        "entpruner data --settings {params.settings:q} --threads {threads} --out {params.out} &> {log}"


rule autoencoder:
    output:
        weights=f"{RESULTS}/autoencoder/diffusion_pytorch_model.safetensors",
        config=f"{RESULTS}/autoencoder/config.json",
    log:
        f"{LOGS}/autoencoder.log",
    localrule: True
    params:
        settings=autoencoder_settings,
        code=code("autoencoder"),
        out=subpath(output.weights, parent=True),
    message:
        "Fetching the autoencoder"
    shell:
        "entpruner autoencoder --settings {params.settings:q} --out {params.out} &> {log}"


# All shards of a data set write to one file beside these, each to rows of its own.
rule latents_shard:
    input:
        unpack(autoencoder),
        store=f"{RESULTS}/data/{{data}}/manifest.json",
    output:
        temp(f"{RESULTS}/latents/{{data}}.parts/{{shard}}.json"),
    log:
        f"{LOGS}/latents/{{data}}-{{shard}}.log",
    threads: asked("latents_shard", "threads")
    resources:
        **asks("latents_shard"),
    params:
        settings=shard_settings,
        code=code("latents_shard"),
        store=subpath(input.store, parent=True),
        autoencoder=subpath(input.weights, parent=True),
        parts=subpath(output[0], parent=True),
    message:
        "Encoding shard {wildcards.shard} of {wildcards.data}"
    shell:
        "entpruner latents_shard --settings {params.settings:q} --store {params.store} --autoencoder {params.autoencoder} --parts {params.parts} &> {log}"


rule latents:
    input:
        unpack(autoencoder),
        store=f"{RESULTS}/data/{{data}}/manifest.json",
        shards=shards,
    output:
        manifest=f"{RESULTS}/latents/{{data}}/manifest.json",
        moments=f"{RESULTS}/latents/{{data}}/moments.npy",
        labels=f"{RESULTS}/latents/{{data}}/labels.npy",
    log:
        f"{LOGS}/latents/{{data}}.log",
    resources:
        **asks("latents"),
    params:
        settings=autoencoder_settings,
        code=code("latents"),
        store=subpath(input.store, parent=True),
        autoencoder=subpath(input.weights, parent=True),
        out=subpath(output.manifest, parent=True),
    message:
        "Gathering the latents of {wildcards.data}"
    shell:
        "entpruner latents --settings {params.settings:q} --store {params.store} --autoencoder {params.autoencoder} --shards {input.shards} --out {params.out} &> {log}"


rule classifier:
    input:
        store=f"{RESULTS}/data/{{data}}/manifest.json",
    output:
        model=f"{RESULTS}/classifier/{{data}}/model.safetensors",
        card=f"{RESULTS}/classifier/{{data}}/model.json",
        metrics=f"{RESULTS}/classifier/{{data}}/metrics.json",
        timing=f"{RESULTS}/classifier/{{data}}/timing.json",
    log:
        f"{LOGS}/classifier/{{data}}.log",
    cache: CACHED
    threads: asked("classifier", "threads")
    resources:
        **asks("classifier"),
    params:
        settings=classifier_settings,
        code=code("classifier"),
        store=subpath(input.store, parent=True),
        out=subpath(output.model, parent=True),
    message:
        "Training the classifier of {wildcards.data}"
    shell:
        "entpruner classifier --settings {params.settings:q} --store {params.store} --out {params.out} &> {log}"
