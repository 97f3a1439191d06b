"""`medcli explain`: which parts of a picture spoke for an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, OptionalInputs, RunArgument
from medcli.cli.output import Output
from medcli.errors import ExitCode, RunFailure, UsageProblem

if TYPE_CHECKING:
    from medcli.explain.session import Outcome

__all__ = ["explain"]


def explain(run: RunArgument, inputs: OptionalInputs, flags: Flags) -> ExitCode | None:
    """Show which parts of pictures spoke for what a run answers, as a map over each picture.

    Every network is explained in the way it can be: one with a map of features by Grad-CAM, a transformer by how its
    attention rolls out, any other by hiding parts of the picture (occlusion); the choice is said, and `--method` makes
    another. Pictures go to `--out DIR` (default: `explanations`), bare maps to `--out FILE.npz`. `--save N` keeps
    pictures of the run's own test data in the run, where its report finds them: N right answers of all classes, from
    unsure to sure, and the N worst errors.

    A map shows where the network looked, not that it was right to. `--sanity` destroys the weights stage by stage: an
    explanation that does not change shows the picture and not the model.

    Examples:
        medcli explain runs/NAME scan.dcm
        medcli explain runs/NAME images/ --method layercam --layer layer2 --out maps
        medcli explain runs/NAME a.png --target PNEUMONIA --method occlusion --out occlusion.npz
        medcli explain runs/NAME images/ --sanity --json
        medcli explain experiments/runs/first --save 12
    """
    from medcli.explain.session import Wishes, explain_run
    from medcli.settings.groups import ComputeSettings, DataSettings, EvaluationSettings, ExplainSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "explain")
    resolved = resolve("explain", flags.given)
    wanted, data = resolved.group(ExplainSettings), resolved.group(DataSettings)
    if not inputs and wanted.save is None:
        raise UsageProblem(
            "no image was named",
            hint=f"`medcli explain {run} IMAGES`, or `--save 12` for examples of the run's own test data",
            code="no-inputs",
        )
    if wanted.save is None:
        for name in ("data", "image_dir"):
            if resolved.origin(name).layer == "flag":
                flag = "--" + name.replace("_", "-")
                what = f"`{flag}` says where the run's own data lies, and only `--save` uses it"
                raise UsageProblem(what, where=flag, hint="name images as arguments", code="no-save")
    if not inputs and settings.out is not None:
        what = "`--save` writes into the run, and no image was named for `--out`"
        raise UsageProblem(what, where="--out", hint="leave it out", code="fixed-by-run")
    compute = resolved.group(ComputeSettings)
    outcome = explain_run(
        run,
        inputs,
        Wishes(
            method=resolved.values["method"],
            layer=wanted.layer,
            targets=wanted.target,
            sanity=wanted.sanity,
            save=wanted.save,
            out=settings.out,
            overwrite=settings.overwrite,
            window=None if resolved.origin("window").layer == "default" else data.window,
            data=data.data if resolved.origin("data").layer == "flag" else (),
            image_dir=data.image_dir if resolved.origin("image_dir").layer == "flag" else (),
            weights=resolved.values["weights"],
            raw=resolved.group(EvaluationSettings).raw,
            device=compute.device,
            batch_size=compute.batch_size,
            seed=compute.seed,
        ),
        output,
    )
    for name, reason in outcome.failures:
        output.warn(f"{name}: {reason}")
    if not outcome.rows:
        raise RunFailure("none of the pictures could be read", code="unreadable-images")
    status = ExitCode.PARTIAL if outcome.failures else ExitCode.DONE
    output.answer(
        outcome.to_dict(), lambda: _text(outcome, output), identifier=outcome.place, run_dir=run, status=status
    )
    return status


def _text(outcome: Outcome, output: Output) -> str:
    score = "probability" if outcome.calibrated else "score"
    labelled = any(row.label for row in outcome.rows)
    columns = ["image", "class", score, *(["true"] if labelled else []), "file"]
    rows: list[list[Any]] = [
        [
            Path(row.id).name,
            row.target_class,
            f"{row.probability:.3f}",
            *([row.label] if labelled else []),
            row.file,
        ]
        for row in outcome.rows
    ]
    parts = [output.table(columns, rows)]
    if outcome.sanity is not None:
        steps = [[step.name, f"{step.rank:.2f}", f"{step.ssim:.2f}"] for step in outcome.sanity.steps]
        parts += [output.table(["shuffled down to", "rank correlation", "SSIM"], steps), outcome.sanity.verdict]
    return "\n\n".join(parts)
