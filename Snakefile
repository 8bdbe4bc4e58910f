# `snakemake` in this folder runs the workflow, which lies where Snakemake's catalogue looks for it.
include: "workflow/Snakefile"


workflow.default_target = "all"  # the default target of a file is not that of a file which includes it
