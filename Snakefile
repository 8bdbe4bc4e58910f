# `snakemake` in this folder runs the workflow, which lies where Snakemake's catalogue looks for it.
include: "workflow/Snakefile"
