# Samples of each arm, what they are worth, and what the network costs.


rule sample:
    input:
        model=f"{RESULTS}/arms/{{arm}}/final/model.safetensors",
        card=f"{RESULTS}/arms/{{arm}}/final/model.json",
    output:
        manifest=f"{RESULTS}/arms/{{arm}}/samples/manifest.json",
        images=f"{RESULTS}/arms/{{arm}}/samples/images.npy",
        labels=f"{RESULTS}/arms/{{arm}}/samples/labels.npy",
        timing=f"{RESULTS}/arms/{{arm}}/samples/timing.json",
        grid=f"{RESULTS}/arms/{{arm}}/samples/grid.png",
    log:
        f"{LOGS}/arms/{{arm}}-sample.log",
    cache: CACHED
    resources:
        mem_mb=3000,
        runtime=240,
        gpu=GPUS,
    params:
        settings=sample_settings,
        code=code("sample"),
        init=subpath(input.model, parent=True),
        out=subpath(output.manifest, parent=True),
    message:
        "Sampling from {wildcards.arm}"
    shell:
        "entpruner sample --settings {params.settings:q} --init {params.init} --out {params.out} &> {log}"


rule evaluate:
    input:
        store=arm_store,
        samples=f"{RESULTS}/arms/{{arm}}/samples/manifest.json",
        classifier=arm_classifier,
    output:
        metrics=f"{RESULTS}/arms/{{arm}}/metrics.json",
        timing=f"{RESULTS}/arms/{{arm}}/metrics.timing.json",
    log:
        f"{LOGS}/arms/{{arm}}-evaluate.log",
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=GPUS,
    params:
        settings=evaluate_settings,
        code=code("evaluate"),
        store=subpath(input.store, parent=True),
        samples=subpath(input.samples, parent=True),
        classifier=classifier_option,
    message:
        "Measuring the samples of {wildcards.arm}"
    shell:
        "entpruner evaluate --settings {params.settings:q} --store {params.store} --samples {params.samples} {params.classifier} --out {output.metrics} --timing {output.timing} &> {log}"


rule cost:
    input:
        store=f"{RESULTS}/data/{{data}}/manifest.json",
    output:
        f"{RESULTS}/cost/{{backbone}}-{{data}}.json",
    log:
        f"{LOGS}/cost/{{backbone}}-{{data}}.log",
    threads: workflow.cores
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=GPUS,
    params:
        settings=cost_settings,
        code=code("cost"),
        store=subpath(input.store, parent=True),
    message:
        "Timing {wildcards.backbone} on {wildcards.data} at every number of blocks"
    shell:
        "entpruner cost --settings {params.settings:q} --store {params.store} --out {output} &> {log}"
