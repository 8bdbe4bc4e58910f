# Recovery: the training after the last pruning, and the whole training of an unpruned arm.


rule recover:
    input:
        unpack(recover_start),
        store=arm_store,
        teacher=arm_teacher,
    output:
        model=f"{RESULTS}/arms/{{arm}}/final/model.safetensors",
        card=f"{RESULTS}/arms/{{arm}}/final/model.json",
        state=f"{RESULTS}/arms/{{arm}}/final/train_state.safetensors",
        curve=f"{RESULTS}/arms/{{arm}}/final/curve.jsonl",
        timing=f"{RESULTS}/arms/{{arm}}/final/timing.json",
    log:
        f"{LOGS}/arms/{{arm}}-recover.log",
    cache: CACHED
    threads: asked("recover", "threads")
    resources:
        **asks("recover"),
    params:
        settings=recover_settings,
        code=code("recover"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        teacher=teacher_option,
        out=subpath(output.model, parent=True),
    message:
        "Recovery of {wildcards.arm}"
    shell:
        "entpruner recover --settings {params.settings:q} --store {params.store} --init {params.init} {params.teacher} --out {params.out} &> {log}"
