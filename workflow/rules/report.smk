# Tables, figures, the page that tells their story, and MLflow's view of them.


rule table:
    input:
        unpack(inputs("table")),
    output:
        **outputs("table")
        | {
            "html": report(
                outputs("table")["html"],
                caption="../report/table.rst",
                category="Tables",
                labels={"table": "{table}"},
            )
        },
    log:
        log_of("table"),
    localrule: True
    resources:
        **asks("table"),
    params:
        **params("table"),
        caption=caption_of,
    message:
        "Building {wildcards.table}"
    shell:
        "entpruner rule table --settings {params.settings:q} {params.paths} &> {log}"


rule figure:
    input:
        unpack(inputs("figure")),
    output:
        **outputs("figure")
        | {
            "png": report(
                outputs("figure")["png"],
                caption="../report/figure.rst",
                category="Figures",
                labels={"figure": "{figure}"},
            )
        },
    log:
        log_of("figure"),
    localrule: True
    resources:
        **asks("figure"),
    params:
        **params("figure"),
        caption=caption_of,
        kind=kind_of,
    message:
        "Drawing {wildcards.figure}"
    shell:
        "entpruner rule figure --settings {params.settings:q} {params.paths} &> {log}"


rule effects:
    input:
        unpack(inputs("effects")),
    output:
        **outputs("effects")
        | {
            "png": report(
                outputs("effects")["png"],
                caption="../report/figure.rst",
                category="Effects",
                labels={"effects": "{effects}"},
            )
        },
    log:
        log_of("effects"),
    localrule: True
    resources:
        **asks("effects"),
    params:
        **params("effects"),
        caption=caption_of,
        kind="effects",
    message:
        "Comparing criteria and schedules for {wildcards.effects}"
    shell:
        "entpruner rule effects --settings {params.settings:q} {params.paths} &> {log}"


rule story:
    input:
        unpack(inputs("story")),
        audit_of_page,
    output:
        **outputs("story")
        | {
            "page": report(
                outputs("story")["page"],
                caption="../report/story.rst",
                category="At a glance",
                labels={"page": "the story"},
            )
        },
    log:
        log_of("story"),
    localrule: True
    resources:
        **asks("story"),
    params:
        **params("story"),
    message:
        "Writing the page of the study"
    shell:
        "entpruner rule story --settings {params.settings:q} {params.paths} &> {log}"


rule track:
    input:
        unpack(inputs("track")),
    output:
        **outputs("track"),
    log:
        log_of("track"),
    localrule: True
    resources:
        **asks("track"),
    params:
        **params("track"),
    message:
        "Bringing MLflow's view up to date"
    shell:
        "entpruner rule track --settings {params.settings:q} {params.paths} &> {log}"
