# The only Python of the workflow: the study, its arms, and what each rule's wildcards stand for.
import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import validate

# The package of this checkout, and its commands, activated or not. No shell stays before a command to die of its signals.
sys.path.insert(0, workflow.basedir)
PROGRAMS = f'export PATH="{Path(sys.executable).parent}:$PATH"; '
shell.prefix(f"{PROGRAMS}exec ")

from entpruner.study.arms import claimed, expand, select
from entpruner.errors import UserError
from entpruner.params.arms import SIZED
from entpruner.params.compute import Compute
from entpruner.params.evaluation import ClassifierExtractor
from entpruner.params.files import DEFAULT_STUDY, check, over_default
from entpruner.params.origins import origins
from entpruner.params.reporting import ScoresFigure
from entpruner.planning.jobs import Job
from entpruner.planning.resources import Needs, needs, require_room
from entpruner.system.provenance import code_digest
from entpruner.system.slurm import require_job_states

# Users' errors leave through sys.exit: a WorkflowError would put lines of this file around them.
try:
    merged, files = over_default(config, [Path(file) for file in workflow.configfiles])
    config.update(merged)
    STUDY = check(config, files)
    require_room(STUDY)
except UserError as error:
    sys.exit(str(error))
validate(config, f"{workflow.basedir}/params/schema.json", set_default=False)

# On how many GPUs and the like commands are told where Snakemake does not look: another answer reruns nothing.
if how := STUDY.compute.model_dump(include=Compute.AT_WILL, exclude_defaults=True):
    said = shlex.quote(json.dumps(how)).replace("{", "{{").replace("}", "}}")  # Snakemake formats it
    shell.prefix(f"{PROGRAMS}export ENTPRUNER_COMPUTE={said}; exec ")

RESULTS = f"results/{STUDY.study}"
LOGS = f"{RESULTS}/logs"
ARMS = expand(STUDY)
DOWNLOADS = {origin.file: origin for origin in origins(STUDY) if origin.url}
STORES = "latents" if STUDY.latents else "data"  # folder of what networks are trained on
COMPUTE = STUDY.compute.model_dump(exclude=Compute.AT_WILL)
# Without a place for the cache, Snakemake would remark on every such rule at each start.
CACHED = "SNAKEMAKE_OUTPUT_CACHE" in os.environ
TRAINED = [
    "model.safetensors",
    "model.json",
    "train_state.safetensors",
    "curve.jsonl",
    "timing.json",
]

for folder in filter(os.path.exists, (RESULTS, "results", ".")):
    if not os.access(folder, os.W_OK):
        sys.exit(f"{folder} is read-only: make it writable, or run with --directory in a folder that is")


def check_cluster():
    """On SLURM, whether it is one that this can work with."""
    if workflow.executor_plugin.name == "slurm":
        given = workflow.executor_settings
        try:
            require_job_states(given.status_command, given.init_seconds_before_status_checks)
        except UserError as error:
            sys.exit(str(error))


wildcard_constraints:
    download="|".join(map(re.escape, DOWNLOADS)) or "none",
    data="|".join(STUDY.datasets),
    backbone="|".join(STUDY.backbones),
    arm="|".join(ARMS) or "none",
    seed=r"\d+",
    stage=r"[1-9]\d*",
    shard=r"\d+",
    cut="(cut-)?",
    table="|".join(STUDY.tables) or "none",
    figure="|".join(STUDY.figures) or "none",


# ---------------------------------------------------------------------------------------------------- settings, code


def settings(**values):
    """What a rule hands to its command, as JSON on the command line."""

    def plain(value):
        if isinstance(value, (list, tuple)):
            return [plain(element) for element in value]
        if isinstance(value, dict):
            return {key: plain(element) for key, element in value.items()}
        return value.model_dump(mode="json") if hasattr(value, "model_dump") else value

    return json.dumps(plain(values), sort_keys=True)


def code(command):
    """Digest of the package files that a command imports: Snakemake does not see them by itself."""
    room = "audit.commands" if command.startswith("audit_") else "commands"
    return code_digest(f"entpruner.{room}.{command}")


def arm_of(wildcards):
    return ARMS[wildcards.arm]


# --------------------------------------------------------------------------------------------------------- resources


@cache
def needs_of(job):
    return needs(STUDY, ARMS, job)


def job_of(rule, wildcards):
    fields = {key: getattr(wildcards, key, "") for key in ("backbone", "data", "arm")}
    fields |= {key: int(getattr(wildcards, key, 0)) for key in ("seed", "stage")}
    return Job(rule, name=getattr(wildcards, "scores", ""), cut=bool(getattr(wildcards, "cut", "")), **fields)


def asked(rule, what):
    """One of the resources of a rule: a function of its wildcards."""
    return lambda wildcards: getattr(needs_of(job_of(rule, wildcards)), what)


def asks(rule):
    """All of them but the threads, by name."""
    return {what: asked(rule, what) for what in Needs._fields if what != "threads"}


# ------------------------------------------------------------------------------------------------------------- paths


def trained(folder):
    """Files of a trained model, by name."""
    return {Path(name).stem: f"{folder}/{name}" for name in TRAINED}


def backbones(imported):
    """As a wildcard's pattern, those whose weights come from a checkpoint, or the others."""
    return "|".join(name for name, net in STUDY.backbones.items() if bool(net.checkpoint) == imported) or "none"


def checkpoint_file(wildcards):
    return STUDY.backbones[wildcards.backbone].checkpoint.file


def checkpoint_download(wildcards):
    return downloaded(STUDY.backbones[wildcards.backbone])


def start_of(backbone, data, seed):
    """Folder of the model that all arms on this data begin with."""
    if data == "upstream":
        return f"{RESULTS}/pretrain/{backbone}-s{seed}"
    return f"{RESULTS}/adapt/{backbone}-{data}-s{seed}"


def start_files(folder):
    """Files of a model that training begins with, by name: its training state, if it has one, is not read."""
    return {"model": f"{folder}/model.safetensors", "card": f"{folder}/model.json"}


def score_start(wildcards):
    return start_files(start_of(wildcards.backbone, wildcards.data, wildcards.seed))


def scores_of(arm):
    return f"{RESULTS}/scores/{arm.backbone}-{arm.data}-s{arm.seed}/{arm.scores}/scores.json"


def arm_start(arm):
    """Folder of the model that an arm begins with."""
    return start_of(arm.backbone, "upstream" if arm.start == "pretrained" else arm.data, arm.seed)


def stage_folder(arm, stage):
    """Folder that a stage (from 1) leaves; stage 0 is what the arm begins with."""
    return f"{RESULTS}/arms/{arm.key}/stage{stage}" if stage else arm_start(arm)


def absent():
    """What the study reads from a path where nothing lies; of data sets and checkpoints, until they have been read."""
    unread = [dataset for data, dataset in STUDY.datasets.items() if not os.path.exists(pixels_of(data))]
    for name, backbone in STUDY.backbones.items():
        starts = [f"{start_of(name, 'upstream', seed)}/model.safetensors" for seed in STUDY.seeds]
        if not all(map(os.path.exists, starts)):
            unread.append(backbone)
    paths = [origin.path for section in unread for origin in origins(section)]
    paths += [getattr(net, "weights", None) for net in STUDY.evaluation.extractors.values()]
    paths.append(getattr(STUDY.latents, "folder", None))
    return [path for path in paths if path and not os.path.exists(path)]


def downloaded(section):
    """What a part of the study names by url. A local file is none of Snakemake's: the command says if it is missing."""
    return [origin.file for origin in origins(section) if origin.url]


def data_downloads(wildcards):
    return downloaded(STUDY.datasets[wildcards.data])


def pixels_of(data):
    return f"{RESULTS}/data/{data}/manifest.json"


def arm_pixels(wildcards):
    return pixels_of(arm_of(wildcards).data)


def store_of(data):
    """What networks are trained on: the pixels, or the latents of these."""
    return f"{RESULTS}/{STORES}/{data}/manifest.json"


def arm_store(wildcards):
    return store_of(arm_of(wildcards).data)


def autoencoder(wildcards):
    folder = f"{RESULTS}/autoencoder"
    return {"weights": f"{folder}/diffusion_pytorch_model.safetensors", "config": f"{folder}/config.json"}


def shards(wildcards):
    return [f"{RESULTS}/latents/{wildcards.data}.parts/{shard}.json" for shard in range(STUDY.latents.shards)]


def before_stage(arm, stage):
    """Files of the model that a stage begins with, the recovery counted as one."""
    return (start_files if stage == 1 else trained)(stage_folder(arm, stage - 1))


def prune_start(wildcards):
    return before_stage(arm_of(wildcards), int(wildcards.stage))


def prune_scores(wildcards):
    return scores_of(arm_of(wildcards))


def recover_start(wildcards):
    arm = arm_of(wildcards)
    return before_stage(arm, arm.stages + 1)


def arm_teacher(wildcards):
    """The model that the arm begins with, where it goes on learning from it."""
    arm = arm_of(wildcards)
    return [] if arm.finetune.distillation is None else f"{arm_start(arm)}/model.safetensors"


def teacher_option(wildcards, input):
    return f"--teacher {Path(input.teacher).parent}" if input.teacher else ""


def cut_folders(wildcards):
    """Folders of the models that the arm's stages began with."""
    arm = arm_of(wildcards)
    return [stage_folder(arm, stage) for stage in range(arm.stages)]


def cut_start(wildcards):
    folders = cut_folders(wildcards)
    return {
        "models": [f"{folder}/model.safetensors" for folder in folders],
        "cards": [f"{folder}/model.json" for folder in folders],
        "decisions": stage_files([arm_of(wildcards)], "decision.json"),
    }


def sampled_model(wildcards):
    folder = f"{RESULTS}/arms/{wildcards.arm}/{'cut' if wildcards.cut else 'final'}"
    return {"model": f"{folder}/model.safetensors", "card": f"{folder}/model.json"}


def sampled_latents(wildcards):
    """What a network's latents are decoded with, and the store of latents that it was trained on."""
    return {"latents": arm_store(wildcards)} | autoencoder(wildcards) if STUDY.latents else {}


def autoencoder_option(wildcards, input):
    return f"--autoencoder {Path(input.weights).parent}" if STUDY.latents else ""


def decoder_option(wildcards, input):
    latents = f" --latents {Path(input.latents).parent}" if STUDY.latents else ""
    return autoencoder_option(wildcards, input) + latents


def classifier_of(data):
    """The data set's own classifier, where the study measures with it."""
    if any(isinstance(net, ClassifierExtractor) for net in STUDY.evaluation.extractors.values()):
        return f"{RESULTS}/classifier/{data}/model.safetensors"
    return []


def arm_classifier(wildcards):
    return classifier_of(arm_of(wildcards).data)


def classifier_option(wildcards, input):
    return f"--classifier {Path(input.classifier).parent}" if input.classifier else ""


def arm_files(arms, *names):
    return [f"{RESULTS}/arms/{arm.key}/{name}" for arm in arms for name in names]


def stage_files(arms, name):
    folders = [stage_folder(arm, stage) for arm in arms for stage in range(1, arm.stages + 1)]
    return [f"{folder}/{name}" for folder in folders]


def cost_files(arms):
    return sorted({f"{RESULTS}/cost/{arm.backbone}-{arm.data}.json" for arm in arms})


def adaptation_files(arms):
    """What it took to move the backbones of arms to their data, where that was done before the arms."""
    starts = {start_of(arm.backbone, arm.data, arm.seed) for arm in arms if arm.adapted}
    return [f"{start}/timing.json" for start in sorted(starts)]


# ---------------------------------------------------------------------------------------------- settings of the rules


def download_settings(wildcards, output):
    """The checksum is in the file's name: as this takes ``output``, Snakemake fetches nothing anew for another url."""
    origin = DOWNLOADS[wildcards.download]
    return settings(url=origin.url, sha256=origin.sha256)


def data_settings(wildcards):
    return settings(dataset=STUDY.datasets[wildcards.data])


def autoencoder_settings(wildcards):
    return settings(latents=STUDY.latents)


def shard_settings(wildcards):
    return settings(latents=STUDY.latents, shard=int(wildcards.shard), compute=COMPUTE)


def classifier_settings(wildcards):
    artefact, seed = f"classifier/{wildcards.data}", STUDY.seeds[0]
    return settings(
        artefact=artefact,
        seed=seed,
        training=STUDY.evaluation.classifier,
        compute=COMPUTE,
    )


def pretrain_settings(wildcards):
    return settings(
        artefact=f"pretrain/{wildcards.backbone}",
        seed=int(wildcards.seed),
        backbone=STUDY.backbones[wildcards.backbone],
        training=STUDY.pretrain,
        compute=COMPUTE,
    )


def import_settings(wildcards):
    channels, size = STUDY.input_shape("upstream")
    return settings(backbone=STUDY.backbones[wildcards.backbone], input_size=size, in_channels=channels)


def adapt_settings(wildcards):
    artefact = f"adapt/{wildcards.backbone}-{wildcards.data}"
    return settings(
        artefact=artefact,
        seed=int(wildcards.seed),
        label_table=STUDY.label_table,
        training=STUDY.adapt,
        compute=COMPUTE,
    )


def scoring_sampler(criterion, scoring):
    """How latents are sampled, for the one criterion that does so."""
    sampled = criterion == "ld_pruner" and scoring.ld_pruner == "sampling"
    return STUDY.sampling if sampled else None


def score_settings(wildcards):
    folder = f"{wildcards.backbone}-{wildcards.data}-s{wildcards.seed}/{wildcards.scores}"
    path = f"{RESULTS}/scores/{folder}/scores.json"
    arm = next((arm for arm in ARMS.values() if scores_of(arm) == path), None)
    criterion = arm.criterion if arm else wildcards.scores
    scoring = arm.scoring if arm else STUDY.scoring
    return settings(
        artefact=f"scores/{wildcards.backbone}-{wildcards.data}",  # all criteria share their draws
        seed=int(wildcards.seed),
        criterion=criterion,
        scoring=scoring,
        sampling=scoring_sampler(criterion, scoring),
        remove=arm.blocks_removed if criterion in SIZED else None,
        compute=COMPUTE,
    )


def rescoring(arm):
    sampling = scoring_sampler(arm.criterion, arm.scoring)
    return dict(criterion=arm.criterion, scoring=arm.scoring, sampling=sampling)


def prune_settings(wildcards):
    arm, stage = arm_of(wildcards), int(wildcards.stage)
    return settings(
        artefact=f"arms/{arm.key}/stage{stage}",
        seed=arm.seed,
        schedule=arm.schedule,
        pruning=arm.pruning,
        proxies=arm.proxies,
        training=arm.finetune,
        stage=stage,
        stages=arm.stages,
        total=arm.blocks_removed,
        rescoring=rescoring(arm) if arm.pruning.rerank and stage > 1 else None,
        start=arm.boundaries[stage - 1],
        stop=arm.boundaries[stage],
        compute=COMPUTE,
    )


def recover_settings(wildcards):
    arm = arm_of(wildcards)
    return settings(
        artefact=f"arms/{arm.key}/final",
        seed=arm.seed,
        training=arm.finetune,
        stage=arm.stages + 1,
        start=arm.boundaries[-2],
        stop=arm.boundaries[-1],
        new_labels=arm.start == "pretrained" and arm.data != "upstream",
        label_table=STUDY.label_table,
        compute=COMPUTE,
    )


def cut_settings(wildcards):
    return settings(compute=COMPUTE)


def sample_settings(wildcards):
    arm = arm_of(wildcards)
    return settings(seed=arm.seed, sampling=arm.sampling, latents=STUDY.latents, compute=COMPUTE)


def evaluate_settings(wildcards):
    return settings(seed=arm_of(wildcards).seed, evaluation=STUDY.evaluation, compute=COMPUTE)


def cost_settings(wildcards):
    arms = [a for a in ARMS.values() if (a.backbone, a.data) == (wildcards.backbone, wildcards.data)]
    return settings(
        backbone=STUDY.backbones[wildcards.backbone],
        blocks=sorted({arm.depth - arm.blocks_removed for arm in arms}),
        adapter_widths=sorted({a.finetune.adapter_width for a in arms if a.finetune.method == "adapters"}),
        batch_size=STUDY.evaluation.latency_batch_size,
        repeats=STUDY.evaluation.latency_repeats,
        compute=COMPUTE,
    )


# ------------------------------------------------------------------------------------------------ tables and figures


def distance():
    """The metric that tables show: that of the study's first feature net."""
    name, net = next(iter(STUDY.evaluation.extractors.items()))
    return "fid" if net.kind == "inception" else f"fd_{name}"


def command():
    """What a reader types at the top of the repository to run this study."""
    root = Path(workflow.basedir)
    given = [
        str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files if file != DEFAULT_STUDY
    ]
    # an option ends the files, which would go on with the targets
    files_given = ["--configfile", *given] if given else []
    return " ".join(["snakemake", *files_given, "--cores all"])


def table_arms(wildcards):
    return select(ARMS.values(), STUDY.tables[wildcards.table])


def table_inputs(wildcards):
    arms, columns = table_arms(wildcards), STUDY.tables[wildcards.table].columns
    names = [
        "metrics.json",
        "metrics.timing.json",
        "samples/timing.json",
        "final/timing.json",
        "final/model.json",
    ]
    cut = [arm for arm in arms if arm.stages and "distance_before" in columns]
    files = arm_files(arms, *names) + arm_files(cut, "cut-metrics.json")
    return files + cost_files(arms) + adaptation_files(arms)


def table_settings(wildcards):
    return settings(
        name=wildcards.table,
        caption=STUDY.tables[wildcards.table].caption,
        columns=STUDY.tables[wildcards.table].columns,
        distance=distance(),
        command=command(),
        arms=[arm.identity for arm in table_arms(wildcards)],
    )


def figure_kind(wildcards):
    return STUDY.figures[wildcards.figure].kind


def figure_settings(wildcards):
    figure, seed = STUDY.figures[wildcards.figure], STUDY.seeds[0]
    if isinstance(figure, ScoresFigure):
        return settings(kind=figure.kind, backbones=figure.backbones, data=figure.data, seed=seed)
    arms = [arm.identity for arm in select(ARMS.values(), figure)]
    return settings(kind=figure.kind, arms=arms, distance=distance())


def figure_inputs(wildcards):
    figure, seed = STUDY.figures[wildcards.figure], STUDY.seeds[0]
    if isinstance(figure, ScoresFigure):
        criteria = ["ced", "sensitivity"] if figure.kind == "entropy_vs_loss" else ["ced"]
        folders = [f"{RESULTS}/scores/{backbone}-{figure.data}-s{seed}" for backbone in figure.backbones]
        return [f"{folder}/{criterion}/scores.json" for folder in folders for criterion in criteria]
    arms = select(ARMS.values(), figure)
    if figure.kind == "curves":
        return stage_files(arms, "curve.jsonl") + arm_files(arms, "final/curve.jsonl")
    if figure.kind == "samples":
        return arm_files(arms, "samples/manifest.json") + [pixels_of(arm.data) for arm in arms[:1]]
    return arm_files(arms, "final/model.json" if figure.kind == "kept_blocks" else "metrics.json")


def caption_of(wildcards):
    named = STUDY.tables[wildcards.table] if hasattr(wildcards, "table") else STUDY.figures[wildcards.figure]
    return named.caption


def tables():
    return [f"{RESULTS}/tables/{table}.md" for table in STUDY.tables]


def figures():
    return [f"{RESULTS}/figures/{figure}.png" for figure in STUDY.figures]


def tracked():
    """Each arm under the first table that shows it."""
    shown = {}
    for table, spec in STUDY.tables.items():
        for arm in select(ARMS.values(), spec):
            shown.setdefault(arm.key, table)
    return {table: [ARMS[key] for key, first in shown.items() if first == table] for table in STUDY.tables}


def track_inputs(wildcards):
    arms = [arm for arms in tracked().values() for arm in arms]
    names = [
        "metrics.json",
        "final/timing.json",
        "final/curve.jsonl",
        "samples/grid.png",
    ]
    return tables() + arm_files(arms, *names) + stage_files(arms, "decision.json") + cost_files(arms)


def track_settings(wildcards):
    return settings(
        study=STUDY.study,
        captions={table: spec.caption for table, spec in STUDY.tables.items()},
        arms={table: [arm.identity for arm in arms] for table, arms in tracked().items()},
    )


# -------------------------------------------------------------------------------------------------------------- audit


def audit_report(wildcards):
    if STUDY.audit is None:
        sys.exit(f"study {STUDY.study} has no section audit; add one, as params/digits.yaml has")
    return f"{RESULTS}/audit/README.md"


def audit_evidence(wildcards):
    """What the parts of the report are made from."""
    everywhere, unets = STUDY.audit.backbones, audited_unets()
    transformers = [backbone for backbone in everywhere if backbone not in unets]
    parts = dict.fromkeys(("masks", "scores", "choices", "stability"), everywhere)
    parts |= dict.fromkeys(("proxies", "schedules"), transformers)
    regimes = [f"{RESULTS}/audit/regime/{backbone}.json" for backbone in everywhere]
    return regimes + [
        f"{RESULTS}/audit/{part}/{backbone}-s{seed}.json"
        for part, backbones in parts.items()
        for backbone in backbones
        for seed in STUDY.audit.seeds
    ]


def audited_unets():
    """Backbones that neither proxies nor votes know."""
    return [backbone for backbone in STUDY.audit.backbones if STUDY.backbones[backbone].unet]


def audit_claim_files(wildcards):
    arms = [arm for _, arm in claimed(STUDY, ARMS.values())]
    return arm_files(arms, "metrics.json", "final/model.json") + cost_files(arms)


def audit_seed(wildcards):
    """The regime is chosen on the first seed."""
    return int(getattr(wildcards, "seed", STUDY.audit.seeds[0]))


def audit_start(wildcards):
    return start_files(start_of(wildcards.backbone, STUDY.audit.data, audit_seed(wildcards)))


def audit_store(wildcards):
    return store_of(STUDY.audit.data)


def audit_images(wildcards):
    """What distances are measured with: real images, the net that sees them, and what makes images of latents."""
    data = STUDY.audit.data
    measuring = {"pixels": pixels_of(data), "classifier": classifier_of(data)}
    return measuring | (autoencoder(wildcards) if STUDY.latents else {})


def audit_images_options(wildcards, input):
    options = classifier_option(wildcards, input), autoencoder_option(wildcards, input)
    return " ".join([f"--pixels {Path(input.pixels).parent}", *filter(None, options)])


def audit_common(wildcards):
    return {
        "artefact": f"audit/{wildcards.backbone}-{STUDY.audit.data}",  # all commands of a backbone share their draws
        "seed": audit_seed(wildcards),
        "scoring": STUDY.scoring,
        "compute": COMPUTE,
    }


def audit_bench(wildcards):
    """Settings of the commands that recover and sample sub-networks."""
    return audit_common(wildcards) | {
        "sampling": STUDY.sampling.model_copy(update={"samples": STUDY.audit.samples}),
        "finetune": STUDY.finetune,
        "evaluation": STUDY.evaluation,
        "latents": STUDY.latents,
    }


def audit_bench_settings(wildcards):
    return settings(**audit_bench(wildcards))


def audit_regime_settings(wildcards):
    return settings(**audit_bench(wildcards), trials=STUDY.audit.regime)


def audit_masks_settings(wildcards):
    audit = STUDY.audit
    chains = 0 if wildcards.backbone in audited_unets() else audit.proxies.chains  # measured for the proxies alone
    return settings(**audit_bench(wildcards), masks=audit.masks, chains=chains, ratios=audit.proxies.ratios)


def audit_scores_settings(wildcards):
    criteria = STUDY.audit.criteria_for(STUDY.backbones[wildcards.backbone])
    return settings(**audit_common(wildcards), sampling=STUDY.sampling, criteria=criteria)


def audit_proxies_settings(wildcards):
    audit = STUDY.audit.proxies
    sweeps = {"samples": audit.samples, "batches": audit.batches, "repeats": audit.repeats}
    return settings(**audit_common(wildcards), proxies=STUDY.proxies, sweeps=sweeps)


def audit_schedules_settings(wildcards):
    audit = STUDY.audit.schedules
    return settings(
        **audit_bench(wildcards),
        pruning=STUDY.pruning,
        proxies=STUDY.proxies,
        paper={"ratio": audit.ratio, "steps": STUDY.audit.steps_of(STUDY.finetune)},
        weights=audit.weights,
    )


def audit_stability_settings(wildcards):
    audit = STUDY.audit.stability
    return settings(
        **audit_common(wildcards),
        draws=audit.draws,
        repeats=audit.repeats,
        finetune=STUDY.finetune,
        steps=STUDY.audit.steps_of(STUDY.finetune),
    )


def audit_upstream(wildcards):
    return store_of("upstream")


def audit_pretrained(wildcards):
    return f"{start_of(wildcards.backbone, 'upstream', wildcards.seed)}/model.safetensors"


def audit_report_settings(wildcards):
    audit = STUDY.audit
    return settings(
        study=STUDY.study,
        backbones=audit.backbones,
        unets=audited_unets(),
        data=audit.data,
        seeds=audit.seeds,
        criteria=list(audit.criteria),
        samples=audit.samples,
        imported=[name for name in audit.backbones if STUDY.backbones[name].checkpoint],
        finetune_steps=audit.finetune_steps,
        distance=distance(),
        claimed=[{"kind": kind, "arm": arm.identity} for kind, arm in claimed(STUDY, ARMS.values())],
    )
