"""`medcli finetune`: adapt pretrained weights with a strategy that says which blocks learn, how fast, and when."""

from __future__ import annotations

from medcli.cli.commands.train import carry_out
from medcli.cli.options import Flags, OptionalArchitectureOrRun
from medcli.cli.output import Output
from medcli.errors import ExitCode

__all__ = ["finetune"]


def finetune(source: OptionalArchitectureOrRun, flags: Flags) -> ExitCode | None:
    """Adapt a pretrained architecture, or the weights of a run, to labelled images.

    Weights come from `--weights`, from the run, or are the card's default ones from the local cache; nothing is
    downloaded (`medcli models fetch` does that). Before it starts, a table says which blocks learn at which rate; it is
    kept in the run as `groups.json`. Learning rates and epochs that are not given come from the architecture's card.

    Examples:
        medcli finetune resnet18 --strategy lp-ft --data breastmnist.npz
        medcli finetune deit_tiny_patch16_224 --strategy layerwise --layer-decay 0.65 --weights deit.safetensors
            --data aptos/train.csv --image-dir aptos/images --image-column id_code --label-column diagnosis
        medcli finetune resnet18 --strategy gradual --unfreeze-at 1,10,20 --epochs 30 --data xrays/
        medcli finetune runs/NAME --strategy frozen --data breastmnist.npz
        medcli finetune --resume runs/20261121T101500Z-train-resnet18-1a2b
    """
    from medcli.training.start import adapted, continued

    output = Output(flags.output(), "finetune")
    if flags.given.get("resume"):
        return carry_out(output, continued(source, flags.given))
    return carry_out(output, adapted("finetune", source, flags.given))
