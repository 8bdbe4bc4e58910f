# Block scores, by the criteria that arms and figures ask for.


rule score:
    input:
        unpack(score_start),
        store=f"{RESULTS}/{STORES}/{{data}}/manifest.json",
    output:
        scores=f"{RESULTS}/scores/{{backbone}}-{{data}}-s{{seed}}/{{scores}}/scores.json",
        timing=f"{RESULTS}/scores/{{backbone}}-{{data}}-s{{seed}}/{{scores}}/timing.json",
    log:
        f"{LOGS}/scores/{{backbone}}-{{data}}-s{{seed}}-{{scores}}.log",
    cache: CACHED
    threads: asked("score", "threads")
    resources:
        **asks("score"),
    params:
        settings=score_settings,
        code=code("score"),
        store=subpath(input.store, parent=True),
        init=subpath(input.model, parent=True),
        out=subpath(output.scores, parent=True),
    message:
        "Scoring the blocks of {wildcards.backbone} on {wildcards.data} by {wildcards.scores} (seed {wildcards.seed})"
    shell:
        "entpruner score --settings {params.settings:q} --store {params.store} --init {params.init} --out {params.out} &> {log}"
