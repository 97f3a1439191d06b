"""The network of a run as an ONNX graph, weights and decoding included, without what comes before and after.

Preprocessing and calibration are graphs of their own (`medcli.export.joining`), because a traced crop of unknown size
breaks what the network's own checks assume, and because only the network is ever quantised.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcli.bundles.extra import require_onnx
from medcli.errors import RunFailure, UsageProblem
from medcli.models.classifier import Classifier
from medcli.models.heads import decode
from medcli.models.nearest import SMALLEST_SHARE, NearestHead
from medcli.runs.directory import writing
from medcli.untraceable import why_untraceable

if TYPE_CHECKING:
    from medcli.data.target import Target

__all__ = [
    "DEFAULT_OPSET",
    "INLINE_LIMIT",
    "OPSETS",
    "MeanNetwork",
    "Network",
    "check_opset",
    "export_onnx",
    "require_export",
    "write_network",
    "write_traced",
]

OPSETS = range(18, 24)
"""What `torch.onnx` writes as asked; below, it silently writes 18."""

DEFAULT_OPSET = 18
INLINE_LIMIT = 1_500_000_000
"""Bytes of weights above which they lie in a file beside the graph: one file of a protocol buffer ends at 2 GiB."""


class Network(nn.Module):
    """A classifier from normalised images to stored logits and pooled features, as a graph can hold it.

    Args:
        classifier: in eval mode; without adapters (see `Classifier.merge`).
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.backbone = classifier.backbone
        head: nn.Module = classifier.medcli_head
        self.head: nn.Module = _Votes(head) if isinstance(head, NearestHead) else head
        self._target: Target = classifier.target
        self._kind = classifier.head_kind
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S, S] -> logits [B, *target.logits_shape], features [B, D]."""
        features = self.backbone(images)
        return self.answer(features), features

    def answer(self, features: Tensor) -> Tensor:
        """[B, D] -> logits."""
        return decode(self.head(features), self._target, self._kind)


class MeanNetwork(nn.Module):
    """Several classifiers as one: the logits of their mean score, and the features of every backbone side by side.

    What `medcli.evaluation.members.mean_logits` computes of stored logits. A backbone that several share runs once.

    Args:
        classifiers: of one target, in eval mode, without adapters, for the same images.
        weights: their shares, summing to one.
    """

    def __init__(self, classifiers: Sequence[Classifier], weights: Sequence[float]) -> None:
        super().__init__()
        used = [(one, weight) for one, weight in zip(classifiers, weights, strict=True) if weight > 0]
        backbones = list({id(one.backbone): one.backbone for one, _ in used}.values())
        self.backbones = nn.ModuleList(backbones)
        self.networks = nn.ModuleList([Network(one) for one, _ in used])
        # Decided here: what is traced may be other objects than these.
        self._places = [next(at for at, each in enumerate(backbones) if each is one.backbone) for one, _ in used]
        self._shares = [math.log(weight) for _, weight in used]
        self._target = classifiers[0].target

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S, S] -> logits [B, *target.logits_shape], features [B, sum of D]."""
        features = [backbone(images) for backbone in self.backbones]
        found = [
            network.answer(features[place])  # type: ignore[operator]
            for network, place in zip(self.networks, self._places, strict=True)
        ]
        return self._mean(torch.stack(found, dim=1)), torch.cat(features, dim=1)

    def _mean(self, logits: Tensor) -> Tensor:
        """[B, members, ...] -> [B, ...]."""
        shares = torch.tensor(self._shares).view(1, -1, *([1] * (logits.ndim - 2)))
        if self._target.task == "multilabel":
            yes, no = (torch.logsumexp(F.logsigmoid(one) + shares, dim=1) for one in (logits, -logits))
            return yes - no
        # Not all runtimes agree on what is left of infinities in a sum of exponentials.
        mean = torch.logsumexp(F.log_softmax(logits.clamp_min(-1e30), dim=-1) + shares, dim=1)
        return _without_padding(mean, self._target)


class _Votes(nn.Module):
    """`NearestHead` with the number of neighbours and of voters fixed, which a graph cannot look up."""

    def __init__(self, head: NearestHead) -> None:
        super().__init__()
        self.target = head.target
        self.register_buffer("stored", head.stored.clone())
        labels = head.labels.nan_to_num(-1).long()
        self._columns: list[tuple[str, str, int]] = []
        multilabel = self.target.task == "multilabel"
        self._classes = 2 if multilabel else self.target.num_classes
        for column, own in enumerate((labels if labels.ndim == 2 else labels[:, None]).unbind(1)):
            voters = (own >= 0).nonzero().squeeze(1)
            self.register_buffer(f"voters{column}", voters)
            self.register_buffer(f"labels{column}", F.one_hot(own[voters], self._classes).float())
            self._columns.append((f"voters{column}", f"labels{column}", min(int(head.neighbours), len(voters))))

    def forward(self, features: Tensor) -> Tensor:
        stored: Tensor = self.stored  # type: ignore[assignment]
        likeness = F.normalize(features, dim=1) @ stored.T
        columns = []
        for voters, labels, count in self._columns:
            if not count:
                columns.append(torch.full_like(likeness[:, :1], 1 / self._classes).expand(-1, self._classes))
                continue
            nearest = likeness[:, getattr(self, voters)].topk(count).indices
            columns.append(getattr(self, labels)[nearest].mean(dim=1))
        share = torch.stack(columns, dim=1)
        if self.target.task == "multilabel":
            positive = share[..., 1].clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE)
            return positive.log() - (1 - positive).log()
        raw = share.clamp_min(SMALLEST_SHARE).log()
        return _without_padding(raw, self.target) if self.target.task == "multioutput" else raw[:, 0]


def _without_padding(logits: Tensor, target: Target) -> Tensor:
    """Logits [B, O, Kmax] of several outputs, minus infinity where an output has fewer classes; others as they are."""
    if not target.outputs:
        return logits
    beyond = torch.tensor(
        [[place >= len(output.classes) for place in range(target.num_classes)] for output in target.outputs]
    )
    return logits.masked_fill(beyond, float("-inf"))


def require_export(where: str | None = None) -> None:
    """Raises `UsageProblem` naming the extra where a package that writes ONNX is missing."""
    require_onnx("exporting to ONNX", "onnx", "onnxscript", "onnxruntime", where=where)


def check_opset(opset: int) -> None:
    """Raises `UsageProblem` for an opset that would not be written as asked."""
    if opset not in OPSETS:
        raise UsageProblem(
            f"opset {opset} cannot be written: {OPSETS[0]} to {OPSETS[-1]} can (antialiased resizing begins at 18)",
            where="--opset",
            hint=f"`--opset {OPSETS[0] if opset < OPSETS[0] else OPSETS[-1]}`",
            code="bad-opset",
        )


def export_onnx(
    classifier: Classifier, path: Path, *, channels: int, image_size: int, opset: int = DEFAULT_OPSET
) -> None:
    """Write the network as ONNX: `images` float32 [n, C, S, S], normalised -> `logits`, `features`; n is free.

    Weights lie in `path`, or in `path` + `.data` beside it where they are above `INLINE_LIMIT`.

    Args:
        classifier: on the CPU, without adapters; left as it is.
        path: the file.
        channels: C.
        image_size: S.
        opset: of the standard operators, see `OPSETS`.

    Raises:
        UsageProblem: a package of the extra is missing, or the opset is not one that can be written.
        RunFailure: the network cannot be traced or has an operator that ONNX lacks (code `not-exportable`), or the file
            cannot be written.
    """
    was_training = classifier.training
    try:
        write_network(Network(classifier), path, channels=channels, image_size=image_size, opset=opset)
    finally:
        classifier.train(was_training)


def write_network(network: nn.Module, path: Path, *, channels: int, image_size: int, opset: int) -> None:
    """As `export_onnx`, of a `Network` or `MeanNetwork`."""
    example = torch.zeros(2, channels, image_size, image_size)
    write_traced(network, path, {"images": example}, ("logits", "features"), opset=opset)


def write_traced(
    network: nn.Module, path: Path, examples: Mapping[str, Tensor], outputs: Sequence[str], *, opset: int
) -> None:
    """Write any network as ONNX, the first axis of everything free; see `export_onnx`.

    Args:
        network: on the CPU, in eval mode.
        path: the file.
        examples: names of its inputs, in order, and a batch of two for each.
        outputs: names of what it gives.
        opset: of the standard operators.

    Raises:
        UsageProblem: a package of the extra is missing, or the opset is not one that can be written.
        RunFailure: code `not-exportable`, or the file cannot be written.
    """
    require_export()
    check_opset(opset)
    batch = torch.export.Dim("n")
    try:
        with quiet_exporter(), torch.inference_mode(False), torch.no_grad():
            program = torch.onnx.export(
                network,
                tuple(examples.values()),
                dynamo=True,
                opset_version=opset,
                input_names=list(examples),
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in examples),
                verbose=False,
            )
    except Exception as error:
        raise cannot_trace(error) from error
    assert program is not None
    forget_origins(program.model)
    bulk = sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
    with writing(path):
        program.save(str(path), external_data=bulk > INLINE_LIMIT)


def forget_origins(model: Any) -> None:
    """Drop stack traces and names of source files of the machine that exported, which say nothing anywhere else."""
    for graph in (model.graph, *model.functions.values()):
        for part in (graph, *graph.all_nodes()):
            part.doc_string = None
            part.metadata_props.clear()
        for value in graph.initializers.values() if hasattr(graph, "initializers") else ():
            value.metadata_props.clear()
        for node in graph.all_nodes():
            for value in node.outputs:
                value.metadata_props.clear()


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Torch's exporter talks to stdout, to its logger and through warnings; what matters is raised."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "onnxscript", "torch._export", "torch.export", "torch.__trace")
    ]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def cannot_trace(error: BaseException) -> RunFailure:
    """A sentence that names the operator, or the line of the network that depends on the numbers in the picture."""
    return RunFailure(
        f"the network {why_untraceable(error)}",
        hint="`--format safetensors` keeps weights and configuration",
        code="not-exportable",
    )
