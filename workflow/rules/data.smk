# What is downloaded, data sets as stores, and each one's own classifier.


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
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=data_settings,
        code=code("data"),
        out=subpath(output.manifest, parent=True),
    message:
        "Preparing data set {wildcards.data}"
    shell:
        "entpruner data --settings {params.settings:q} --out {params.out} &> {log}"


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
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=GPUS,
    params:
        settings=classifier_settings,
        code=code("classifier"),
        store=subpath(input.store, parent=True),
        out=subpath(output.model, parent=True),
    message:
        "Training the classifier of {wildcards.data}"
    shell:
        "entpruner classifier --settings {params.settings:q} --store {params.store} --out {params.out} &> {log}"
