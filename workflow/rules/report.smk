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
    resources:
        mem_mb=2000,
        runtime=30,
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


rule entropy_figure:
    input:
        ced=figure_scores("ced"),
        sensitivity=figure_scores("sensitivity"),
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/entropy_vs_loss.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg=f"{RESULTS}/figures/{{figure}}.svg",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=figures_of("entropy_vs_loss"),
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=panel_settings,
        code=code("entropy_figure"),
        caption=caption_of,
        out=subpath(output.png, strip_suffix=".png"),
    message:
        "Drawing {wildcards.figure}: entropy change against loss change"
    shell:
        "entpruner entropy_figure --settings {params.settings:q} --ced {input.ced} --sensitivity {input.sensitivity} --out {params.out} &> {log}"


rule curves_figure:
    input:
        curve_inputs,
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/curves.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg=f"{RESULTS}/figures/{{figure}}.svg",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=figures_of("curves"),
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=figure_settings,
        code=code("curves_figure"),
        results=subpath(output.png, ancestor=2),
        caption=caption_of,
        out=subpath(output.png, strip_suffix=".png"),
    message:
        "Drawing {wildcards.figure}: training curves"
    shell:
        "entpruner curves_figure --settings {params.settings:q} --results {params.results} --out {params.out} &> {log}"


rule samples_figure:
    input:
        arms=sample_inputs,
        store=figure_store,
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/samples.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg=f"{RESULTS}/figures/{{figure}}.svg",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=figures_of("samples"),
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=figure_settings,
        code=code("samples_figure"),
        results=subpath(output.png, ancestor=2),
        store=subpath(input.store, parent=True),
        caption=caption_of,
        out=subpath(output.png, strip_suffix=".png"),
    message:
        "Drawing {wildcards.figure}: samples"
    shell:
        "entpruner samples_figure --settings {params.settings:q} --results {params.results} --store {params.store} --out {params.out} &> {log}"


rule track:
    input:
        track_inputs,
    output:
        f"{RESULTS}/tracking.json",
    log:
        f"{LOGS}/tracking.log",
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=track_settings,
        code=code("track"),
        results=subpath(output[0], parent=True),
    message:
        "Bringing MLflow's view up to date"
    shell:
        "entpruner track --settings {params.settings:q} --results {params.results} --database results/mlflow.db --artifacts results/mlartifacts --out {output} &> {log}"
