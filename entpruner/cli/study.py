"""Commands that look at a study before it runs, and one that makes it run faster."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from entpruner.errors import UserError
from entpruner.params import files
from entpruner.rules import RULES
from entpruner.study.resolved import ResolvedStudy


def params(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner params check params/digits.yaml params/ablations/distillation.yaml"
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    summaries = {check: "say all that is wrong, or nothing", show: "print the study with every default filled in"}
    for action, summary in summaries.items():
        on_files = actions.add_parser(action.__name__, help=summary)
        add_files(on_files)
        on_files.set_defaults(action=action)
    actions.add_parser("schema", help="print the JSON schema").set_defaults(action=schema)
    on_images = actions.add_parser("init", help="write a study of images of yours, which runs as it is")
    on_images.add_argument("images", type=Path, metavar="IMAGES", help="folder or archive of <class>/*.jpg or .png")
    on_images.add_argument("--out", type=Path, required=True, metavar="FILE", help="the study is named like this file")
    on_images.set_defaults(action=init)
    on_grid = actions.add_parser("grid", help="write an ablation: an arm with other values of some keys, one arm each")
    add_files(on_grid)
    on_grid.add_argument("--arm", default="entpruner", help="the arm that is changed; default: entpruner")
    values = "a key and its values: pruning.stages=1,2,4; several options make all combinations"
    on_grid.add_argument("--set", dest="keys", action="append", required=True, metavar="KEY=VALUES", help=values)
    on_grid.add_argument("--out", type=Path, required=True, metavar="FILE", help="the ablation, to lay over the study")
    on_grid.set_defaults(action=grid)


def plan(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner plan params/paper.yaml --gpu 'A100 80GB' --mfu 0.3"
    add_files(parser)
    where = parser.add_mutually_exclusive_group()
    says = "name, or peaks in TFLOP/s and GB as in tflops=165,memory=24 (default: H100 SXM)"
    where.add_argument("--gpu", default="H100 SXM", metavar="GPU", help=says)
    where.add_argument("--here", action="store_true", help="on this machine instead, whose speed is tried for a while")
    parser.add_argument(
        "--mfu", type=float, default=0.4, metavar="SHARE", help="of the GPU's peaks that is reached; default: 0.4"
    )
    parser.add_argument("--json", action="store_true", help="FLOPs, seconds and bytes, as JSON")
    parser.set_defaults(action=forecast)


def warm(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner warm -- snakemake --cores all"
    parser.add_argument("program", nargs="+", help="after --, with its arguments: -- snakemake --cores all")
    parser.set_defaults(action=warm_up)


def doctor(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner doctor results/digits"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results of a study: results/digits")
    parser.add_argument("--mend", action="store_true", help="delete what is damaged or left over: a run makes it again")
    parser.set_defaults(action=examined)


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="later files lie over earlier")


def check(given: argparse.Namespace) -> None:
    ResolvedStudy(files.read_study(given.files)).require_networks()


def show(given: argparse.Namespace) -> None:
    print(files.show(files.read_study(given.files)), end="")


def schema(_: argparse.Namespace) -> None:
    print(json.dumps(files.schema(), indent=2, ensure_ascii=False))


def init(given: argparse.Namespace) -> None:
    from entpruner.planning.initial import initial_study

    write_new(given.out, initial_study(given.images, given.out.stem))
    print(f"{given.out}: a study; next: entpruner plan {given.out}; snakemake --cores all --configfile {given.out}")


def grid(given: argparse.Namespace) -> None:
    from entpruner.params.grid import grid_of

    text = grid_of(given.files, given.arm, given.keys)
    write_new(given.out, text)
    over = " ".join(map(str, [*given.files, given.out]))
    print(f"{given.out}: an ablation; next: snakemake --cores all --configfile {over}")


def write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet."""
    if file.exists():
        raise UserError(f"{file}: is there already; give another file, or remove it")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def forecast(given: argparse.Namespace) -> None:
    from entpruner.planning.gpus import gpu_named
    from entpruner.planning.plan import as_json, as_text, plan
    from entpruner.planning.speed import on_gpu, on_this_machine

    if not 0 < given.mfu <= 1:
        raise UserError(f"--mfu: got {given.mfu:g}; allowed: above 0, at most 1: a share of the GPU's peak")
    gpu = gpu_named(given.gpu)
    found = plan(given.files, on_this_machine if given.here else lambda _: on_gpu(gpu, given.mfu))
    print(json.dumps(as_json(found), indent=1) if given.json else as_text(found))


def examined(given: argparse.Namespace) -> int:
    from entpruner.reporting.doctor import examine

    found = list(examine(given.folder))
    for path, says, mend in found:
        if given.mend and mend:
            mend()
        print(f"{path}: {says}{'; deleted' if given.mend and mend else ''}")
    return int(not given.mend and any(finding.mend for finding in found))


def warm_up(given: argparse.Namespace) -> None:
    from entpruner import cli
    from entpruner.system import warm

    require_params_files(given.program)
    served = [rule for rule in RULES.values() if rule.warm]
    modules = [*(rule.module for rule in served), "torch_fidelity", *libraries_of(given.program)]
    warm.become(given.program, modules, [[cli.RULE, rule.name] for rule in served])
    warm.leave(cli.main())  # a child of the server, with a command of its own


def libraries_of(program: Sequence[str]) -> list[str]:
    """What the commands of a study load besides PyTorch, as its params files say: diffusers, and the compiler."""
    files = [Path(word) for word in program if word.endswith((".yaml", ".yml"))]
    texts = [file.read_text(errors="ignore") for file in files if file.is_file()]
    needed = {"diffusers:": "diffusers.models.modeling_utils", "compile: true": "entpruner.system.compiling"}
    return [module for key, module in needed.items() if any(key in text for text in texts)]


def require_params_files(program: Sequence[str]) -> None:
    """Raise UserError for a target behind --configfile, which Snakemake would take for a file, with a traceback."""
    taken = False
    for word in program:
        if taken and not word.startswith("-") and not Path(word).exists():
            raise UserError(f"--configfile: {word}: no such file; a target stands before --configfile, or behind --")
        taken = word in ("--configfile", "--configfiles") or (taken and not word.startswith("-"))
