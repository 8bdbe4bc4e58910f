# Pruning stages: each decides how many blocks go, drops them and trains on.


rule prune:
    input:
        unpack(prune_start),
        store=arm_store,
        teacher=arm_teacher,
        scores=prune_scores,
    output:
        model=f"{RESULTS}/arms/{{arm}}/stage{{stage}}/model.safetensors",
        card=f"{RESULTS}/arms/{{arm}}/stage{{stage}}/model.json",
        state=f"{RESULTS}/arms/{{arm}}/stage{{stage}}/train_state.safetensors",
        curve=f"{RESULTS}/arms/{{arm}}/stage{{stage}}/curve.jsonl",
        timing=f"{RESULTS}/arms/{{arm}}/stage{{stage}}/timing.json",
        decision=f"{RESULTS}/arms/{{arm}}/stage{{stage}}/decision.json",
    log:
        f"{LOGS}/arms/{{arm}}-stage{{stage}}.log",
    cache: CACHED
    threads: asked("prune", "threads")
    resources:
        **asks("prune"),
    params:
        settings=prune_settings,
        code=code("prune"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        teacher=teacher_option,
        out=subpath(output.model, parent=True),
    message:
        "Stage {wildcards.stage} of {wildcards.arm}"
    shell:
        "entpruner prune --settings {params.settings:q} --store {params.store} --init {params.init} --scores {input.scores} {params.teacher} --out {params.out} &> {log}"
