# Samples of each arm, what they are worth, and what the network costs. The wildcard `cut` is empty after recovery,
# and "cut-" for the network right after the arm's last cut.


rule cut:
    input:
        unpack(cut_start),
    output:
        model=f"{RESULTS}/arms/{{arm}}/cut/model.safetensors",
        card=f"{RESULTS}/arms/{{arm}}/cut/model.json",
        timing=f"{RESULTS}/arms/{{arm}}/cut/timing.json",
    log:
        f"{LOGS}/arms/{{arm}}-cut.log",
    resources:
        **asks("cut"),
    params:
        settings=cut_settings,
        code=code("cut"),
        inits=cut_folders,
        out=subpath(output.model, parent=True),
    message:
        "Taking {wildcards.arm} as its last cut left it"
    shell:
        "entpruner cut --settings {params.settings:q} --inits {params.inits} --decisions {input.decisions} --out {params.out} &> {log}"


rule sample:
    input:
        unpack(sampled_model),
        unpack(sampled_latents),
    output:
        manifest=f"{RESULTS}/arms/{{arm}}/{{cut}}samples/manifest.json",
        images=f"{RESULTS}/arms/{{arm}}/{{cut}}samples/images.npy",
        labels=f"{RESULTS}/arms/{{arm}}/{{cut}}samples/labels.npy",
        timing=f"{RESULTS}/arms/{{arm}}/{{cut}}samples/timing.json",
        grid=f"{RESULTS}/arms/{{arm}}/{{cut}}samples/grid.png",
    log:
        f"{LOGS}/arms/{{arm}}-{{cut}}sample.log",
    cache: CACHED
    threads: asked("sample", "threads")
    resources:
        **asks("sample"),
    params:
        settings=sample_settings,
        code=code("sample"),
        init=subpath(input.model, parent=True),
        decoder=decoder_option,
        out=subpath(output.manifest, parent=True),
    message:
        "Sampling from {params.init}"
    shell:
        "entpruner sample --settings {params.settings:q} --init {params.init} {params.decoder} --out {params.out} &> {log}"


rule evaluate:
    input:
        store=arm_pixels,
        samples=f"{RESULTS}/arms/{{arm}}/{{cut}}samples/manifest.json",
        classifier=arm_classifier,
    output:
        metrics=f"{RESULTS}/arms/{{arm}}/{{cut}}metrics.json",
        timing=f"{RESULTS}/arms/{{arm}}/{{cut}}metrics.timing.json",
    log:
        f"{LOGS}/arms/{{arm}}-{{cut}}evaluate.log",
    threads: asked("evaluate", "threads")
    resources:
        **asks("evaluate"),
    params:
        settings=evaluate_settings,
        code=code("evaluate"),
        store=subpath(input.store, parent=True),
        samples=subpath(input.samples, parent=True),
        classifier=classifier_option,
    message:
        "Measuring {params.samples}"
    shell:
        "entpruner evaluate --settings {params.settings:q} --store {params.store} --samples {params.samples} {params.classifier} --out {output.metrics} --timing {output.timing} &> {log}"


rule cost:
    input:
        store=f"{RESULTS}/{STORES}/{{data}}/manifest.json",
    output:
        f"{RESULTS}/cost/{{backbone}}-{{data}}.json",
    log:
        f"{LOGS}/cost/{{backbone}}-{{data}}.log",
    threads: workflow.cores
    resources:
        **asks("cost"),
    params:
        settings=cost_settings,
        code=code("cost"),
        store=subpath(input.store, parent=True),
    message:
        "Timing {wildcards.backbone} on {wildcards.data} at every number of blocks"
    shell:
        "entpruner cost --settings {params.settings:q} --store {params.store} --out {output} &> {log}"
