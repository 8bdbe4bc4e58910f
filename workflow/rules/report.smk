# Tables, figures, and MLflow's view of them.


rule table:
    input:
        arms=table_inputs,
        reference=workflow.source_path("../../params/reference.yaml"),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        provenance=f"{RESULTS}/tables/{{table}}.provenance.json",
    log:
        f"{LOGS}/tables/{{table}}.log",
    localrule: True
    resources:
        **asks("table"),
    params:
        settings=table_settings,
        code=code("table"),
        results=subpath(output.md, ancestor=2),
        caption=caption_of,
        out=subpath(output.md, parent=True),
    message:
        "Building {wildcards.table}"
    shell:
        "entpruner table --settings {params.settings:q} --results {params.results} --reference {input.reference} --out {params.out} &> {log}"


rule figure:
    input:
        figure_inputs,
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg=f"{RESULTS}/figures/{{figure}}.svg",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    localrule: True
    resources:
        **asks("figure"),
    params:
        settings=figure_settings,
        code=code("figure"),
        kind=figure_kind,
        results=subpath(output.png, ancestor=2),
        caption=caption_of,
        out=subpath(output.png, strip_suffix=".png"),
    message:
        "Drawing {wildcards.figure}"
    shell:
        "entpruner figure --settings {params.settings:q} --results {params.results} --out {params.out} &> {log}"


rule track:
    input:
        track_inputs,
    output:
        f"{RESULTS}/tracking.json",
    log:
        f"{LOGS}/tracking.log",
    localrule: True
    resources:
        **asks("track"),
    params:
        settings=track_settings,
        code=code("track"),
        results=subpath(output[0], parent=True),
    message:
        "Bringing MLflow's view up to date"
    shell:
        "entpruner track --settings {params.settings:q} --results {params.results} --database results/mlflow.db --artifacts results/mlartifacts --out {output} &> {log}"
