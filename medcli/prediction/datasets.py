"""A run's model over the cases of a data set."""

from __future__ import annotations

from collections.abc import Callable

from medcli.data.batches import open_batches
from medcli.data.dataset import Samples
from medcli.evaluation.predictions import Predictions
from medcli.models.build import LoadedModel
from medcli.models.device import choose_device
from medcli.prediction.predict import predict_batches, suits_channels_last
from medcli.settings.groups import ComputeSettings

__all__ = ["place_model", "predict_samples"]


def place_model(loaded: LoadedModel, device: str) -> str:
    """Move the network to the device of `--device`, in the memory layout that suits it; returns the device's name.

    Raises:
        UsageProblem: this machine has no such device.
    """
    import torch

    chosen = choose_device(device)
    layout = torch.channels_last if suits_channels_last(loaded.predictor) else torch.contiguous_format
    loaded.predictor.to(device=chosen, memory_format=layout)  # type: ignore[call-overload]
    return str(chosen)


def predict_samples(
    loaded: LoadedModel,
    samples: Samples,
    compute: ComputeSettings,
    *,
    split: str,
    data_name: str,
    skip_unreadable: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, tuple[tuple[str, str], ...]]:
    """Decode, run, collect.

    Args:
        loaded: the run's model with its preprocessing.
        samples: the cases.
        compute: device, precision, batch size, workers.
        split: stored in the predictions.
        data_name: stored in the predictions.
        skip_unreadable: leave out images that cannot be read, instead of one error that names them.
        progress: told (images read, images in all).

    Returns:
        the predictions, and (file, reason) of the images left out.

    Raises:
        UsageProblem: no such device.
        RunFailure: unreadable images, outputs that are no numbers.
    """
    device = place_model(loaded, compute.device)
    batches = open_batches(
        samples,
        loaded.preprocessing,
        batch_size=compute.batch_size,
        workers=compute.workers,
        skip_unreadable=skip_unreadable,
        device=device,
        progress=progress,
    )
    predictions = predict_batches(
        loaded.predictor,
        batches.epoch(0),
        batches.samples,
        target=loaded.spec.target,
        preprocessing=loaded.preprocessing,
        head_kind=loaded.spec.head_kind,
        device=device,
        precision=compute.precision,
        split=split,
        data_name=data_name,
    )
    return predictions, batches.skipped
