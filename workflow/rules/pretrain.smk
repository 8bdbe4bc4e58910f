# Backbones: trained from nothing on the upstream data, or taken from a checkpoint, then moved to other data.


rule pretrain:
    input:
        store=f"{RESULTS}/{STORES}/upstream/manifest.json",
    output:
        model=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/model.safetensors",
        card=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/model.json",
        state=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/train_state.safetensors",
        curve=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/curve.jsonl",
        timing=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/timing.json",
    log:
        f"{LOGS}/pretrain/{{backbone}}-s{{seed}}.log",
    wildcard_constraints:
        backbone=backbones(imported=False),
    cache: CACHED
    threads: asked("pretrain", "threads")
    resources:
        **asks("pretrain"),
    params:
        settings=pretrain_settings,
        code=code("pretrain"),
        store=subpath(input.store, parent=True),
        out=subpath(output.model, parent=True),
    message:
        "Pre-training {wildcards.backbone} (seed {wildcards.seed})"
    shell:
        "entpruner pretrain --settings {params.settings:q} --store {params.store} --out {params.out} &> {log}"


rule import_checkpoint:
    input:
        checkpoint_download,
    output:
        model=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/model.safetensors",
        card=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/model.json",
        timing=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/timing.json",
    log:
        f"{LOGS}/pretrain/{{backbone}}-s{{seed}}.log",
    wildcard_constraints:
        backbone=backbones(imported=True),
    cache: CACHED
    resources:
        **asks("import_checkpoint"),
    params:
        settings=import_settings,
        code=code("import_checkpoint"),
        checkpoint=checkpoint_file,
        out=subpath(output.model, parent=True),
    message:
        "Importing {wildcards.backbone} from {params.checkpoint}"
    shell:
        "entpruner import_checkpoint --settings {params.settings:q} --checkpoint {params.checkpoint:q} --out {params.out} &> {log}"


rule adapt:
    input:
        model=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/model.safetensors",
        card=f"{RESULTS}/pretrain/{{backbone}}-s{{seed}}/model.json",
        store=f"{RESULTS}/{STORES}/{{data}}/manifest.json",
    output:
        model=f"{RESULTS}/adapt/{{backbone}}-{{data}}-s{{seed}}/model.safetensors",
        card=f"{RESULTS}/adapt/{{backbone}}-{{data}}-s{{seed}}/model.json",
        state=f"{RESULTS}/adapt/{{backbone}}-{{data}}-s{{seed}}/train_state.safetensors",
        curve=f"{RESULTS}/adapt/{{backbone}}-{{data}}-s{{seed}}/curve.jsonl",
        timing=f"{RESULTS}/adapt/{{backbone}}-{{data}}-s{{seed}}/timing.json",
    log:
        f"{LOGS}/adapt/{{backbone}}-{{data}}-s{{seed}}.log",
    cache: CACHED
    threads: asked("adapt", "threads")
    resources:
        **asks("adapt"),
    params:
        settings=adapt_settings,
        code=code("adapt"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        out=subpath(output.model, parent=True),
    message:
        "Adapting {wildcards.backbone} to {wildcards.data} (seed {wildcards.seed})"
    shell:
        "entpruner adapt --settings {params.settings:q} --store {params.store} --init {params.init} --out {params.out} &> {log}"
