"""`medcli lora`: train low-rank adapters beside a pretrained backbone that stays as it is."""

from __future__ import annotations

from medcli.cli.commands.train import carry_out
from medcli.cli.options import Flags, OptionalArchitectureOrRun
from medcli.cli.output import Output
from medcli.errors import ExitCode

__all__ = ["lora"]


def lora(source: OptionalArchitectureOrRun, flags: Flags) -> ExitCode | None:
    """Adapt a pretrained backbone with low-rank adapters, and keep nothing but them and the head.

    Less than a hundredth of the parameters learns, and a run takes a few megabytes: the adapter in PEFT's own layout,
    with what is needed to find its base again and to refuse any other. Of a run of this command a copy of its adapter
    goes on learning; any other run gets a new adapter on its weights. Weights come from `--weights`, from the run, or
    are the card's default ones from the local cache. `medcli predict RUN RUN IMAGES` loads a common base once.

    Examples:
        medcli lora deit_tiny_patch16_224 --weights deit.safetensors --targets attn --data xrays/
        medcli lora deit_tiny_patch16_224 --weights deit.safetensors --preset dr-lora --data aptos/train.csv
            --image-dir aptos/images --image-column id_code --label-column diagnosis
        medcli lora resnet18 --rank 4 --variant dora --data breastmnist.npz
        medcli lora runs/NAME --data breastmnist.npz
        medcli lora --resume runs/20261121T101500Z-train-resnet18-1a2b
    """
    from medcli.training.start import adapted, continued

    output = Output(flags.output(), "lora")
    if flags.given.get("resume"):
        return carry_out(output, continued(source, flags.given))
    return carry_out(output, adapted("lora", source, flags.given))
