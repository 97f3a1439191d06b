"""The guides hold what the five systems' documents advise, corrected where needed, and name commands that exist."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from medcli.cli.app import program
from medcli.cli.guides import guides
from medcli.cli.tree import Command, Group
from medcli.cli.typer_adapter import execute
from medcli.registry.discovery import architecture_names
from medcli.settings.commands import COMMANDS

GUIDES = guides()
TOPICS = ("checklist", "choosing", "datasets", "lora", "memory", "strategies", "troubleshooting", "uncertainty")

# Document, piece of advice, topic, words of ours that say it (or say what is right instead).
ADVICE = [
    ("000", "beginners: resnet50", "choosing", "resnet50; its parts are the easiest to follow"),
    ("000", "medical domain: CheXNet, which was trained on ChestX-ray14", "choosing", "trained on ChestX-ray14"),
    ("000", "best on chest X-rays: RAD-DINO with its own processor", "choosing", "raddino with its own 518 px"),
    ("000", "quick tests: custom1", "choosing", "custom1 or resnet18"),
    ("000", "phases: development, optimisation, production", "choosing", "By phase. Development"),
    ("000", "progressive path", "choosing", "custom1, then resnet50, then a network pretrained"),
    ("000", "GPU memory: 4 GB", "choosing", "4 GB: resnet50, densenet121"),
    ("000", "GPU memory: 8 GB", "choosing", "8 GB: vit_base, raddino"),
    ("000", "CPU only: custom1, resnet18", "choosing", "No GPU: custom1, resnet18"),
    ("000", "batch of RAD-DINO", "memory", "RAD-DINO at 518 px: 16 on 16 GB"),
    ("000", "rates differ by model", "strategies", "The rate belongs to the architecture"),
    ("000", "RAD-DINO at 1e-5", "strategies", "RAD-DINO whole 1e-5"),
    ("000", "small batch with accumulation", "memory", "--batch-size 8 --accumulate 4"),
    ("000", "warm-up is not unfreezing", "strategies", "it is not gradual unfreezing"),
    ("000", "more patience for large models", "strategies", "patience of 3 to 10"),
    ("000", "gradient checkpointing", "memory", "--grad-checkpointing"),
    ("000", "CPU for very large models", "memory", "The CPU: slower"),
    ("000", "optional model missing", "troubleshooting", "pip install 'transformers>=5.0'"),
    ("000", "slow: a lighter model", "troubleshooting", "A lighter network than RAD-DINO"),
    ("000", "slow: larger batches, mixed precision", "troubleshooting", "larger batches"),
    ("000", "poor: domain model, pretrained weights, rate", "troubleshooting", "a network of the domain"),
    ("001", "frozen: less than 5,000 images", "strategies", "Fewer than 5,000 images"),
    ("001", "layer-wise rates recommended", "strategies", "The usual choice for medical pictures"),
    ("001", "gradual: far domains, forgetting", "strategies", "guards against forgetting"),
    ("001", "full: above 50,000", "strategies", "Above 50,000 images"),
    ("001", "the ladder of rates", "strategies", "1e-4, 1e-5, 1e-6, 1e-6 with the head at 1e-3"),
    ("001", "unfreeze at 1, 10, 20", "strategies", "--unfreeze-at 1,10,20"),
    ("001", "300 epochs and batches of 512 are for training from nothing", "strategies", "Batches of 256 to 512"),
    ("001", "transformers: longer warm-up", "strategies", "Transformers want longer warm-up"),
    ("001", "transformers: stochastic depth", "strategies", "drop path 0.1 for transformers"),
    ("001", "PathMNIST, and that it is balanced", "datasets", "PathMNIST, 89,996, nine tissues, nearly balanced"),
    ("001", "ChestMNIST: weighted BCE, no mirroring", "datasets", "binary cross-entropy, weights capped"),
    ("001", "DermaMNIST: focal loss 2.5, gradual", "datasets", "2.5 for DermaMNIST"),
    ("001", "DermaMNIST: keep colour", "choosing", "colour is the sign"),
    ("001", "EfficientNet for mobile", "choosing", "efficientnet_lite0, mobilenetv3"),
    ("001", "DenseNet: few parameters, small sets", "choosing", "few parameters, good on small sets"),
    ("001", "ViT over-fits small data", "choosing", "a poor choice below some 100,000"),
    ("001", "attention maps", "choosing", "attention maps come with it"),
    ("001", "ensembles of five seeds", "uncertainty", "Five is usual"),
    ("001", "dropout is not the aleatoric part", "uncertainty", "Dropout does not measure the aleatoric part"),
    ("001", "temperature on validation", "uncertainty", "Temperature scaling (the default)"),
    ("001", "not improving: rate", "troubleshooting", "too high diverges, too low creeps"),
    ("001", "not improving: preprocessing", "troubleshooting", "Preprocessing: pretrained weights want"),
    ("001", "not improving: batch size", "troubleshooting", "very small ones are noisy"),
    ("001", "not improving: longer", "troubleshooting", "Longer: --epochs"),
    ("001", "memory: accumulation, precision, smaller variant", "memory", "A smaller variant of the family"),
    ("001", "over-fitting: regularise, augment, stop, shrink", "troubleshooting", "--augment medium, --dropout 0.5"),
    ("001", "NaN: clip, lower rate, check inputs", "troubleshooting", "--clip-grad 1"),
    ("001", "start simple", "checklist", "resnet50 or efficientnet_b3"),
    ("001", "monitor calibration too", "checklist", "calibration among them"),
    ("001", "save the best by validation", "checklist", "keep the best epoch by a validation figure"),
    ("001", "several seeds", "checklist", "compare with several of them"),
    ("001", "document everything", "checklist", "settings, versions, splits and hashes"),
    ("002", "accumulation to simulate larger batches", "memory", "and accumulation"),
    ("002", "half precision for pair models", "memory", "half precision, gradient checkpointing"),
    ("002", "memory of the pair models, as measured", "memory", "about 5 GiB of activations a pair"),
    ("003", "ResNet: small sets, fast, stable", "choosing", "stable, first baseline"),
    ("003", "ViT not on a CPU, not without pretraining", "choosing", "needs pretraining"),
    ("003", "more than a million images", "choosing", "Above 1,000,000"),
    ("003", "EfficientNet: accuracy per parameter", "choosing", "most accuracy per parameter"),
    ("003", "learning fundamentals", "choosing", "Learning how it is done"),
    ("003", "fast inference: B0 or B1", "choosing", "efficientnet_b0 or b1"),
    ("003", "research, production, edge, competition", "choosing", "a competition: an ensemble"),
    ("003", "batch sizes by GPU", "memory", "8 GB: resnet50 64, efficientnet_b3 48, vit_base 32"),
    ("003", "freeze early layers", "strategies", "--freeze-layers 2"),
    ("004", "quick baseline: resnet50", "choosing", "resnet18 or resnet50, frozen"),
    ("004", "RETFound for fundus photographs", "choosing", "retfound-cfp with LoRA"),
    ("004", "LoRA for little memory and many sets", "lora", "Little GPU memory, several data sets"),
    ("004", "full fine-tuning for the last point", "lora", "last point of accuracy"),
    ("004", "that LoRA generalises better is open", "lora", "open question for every data set"),
    ("004", "counts of rank 8, corrected", "lora", "786,432 parameters"),
    ("004", "ranks 4, 8, 16, 32", "lora", "32: the most that is usual"),
    ("004", "alpha is four times the rank", "lora", "4 r by default (32 at rank 8)"),
    ("004", "alpha for large shifts", "lora", "8 r bolder, for a large shift"),
    ("004", "targets qkv, optional projection", "lora", "attn adds the output projection"),
    ("004", "five times the rate", "lora", "About five times that of full fine-tuning"),
    ("004", "underfitting", "lora", "--rank 16, or a larger --lora-alpha"),
    ("004", "over-fitting", "lora", "Over-fitting: --rank 4"),
    ("004", "slow convergence", "lora", "--lr 1e-3"),
    ("004", "unstable", "lora", "--lr 2e-4"),
    ("004", "search ranges", "lora", "rank 4 to 32, alpha, rate, batch size and dropout"),
    ("004", "several adapters on one backbone", "lora", "share one backbone's weights"),
    ("004", "starting from another adapter is a choice", "lora", "to start fresh on the same backbone"),
    ("004", "two stages: 1e-3, then 1e-4", "strategies", "head at 1e-3 for 5 epochs, then everything at 1e-4"),
    ("004", "pretraining needed below 100,000", "checklist", "wants 100,000 images and more"),
    ("004", "fix the seed", "checklist", "Do fix the seed"),
    ("004", "test on another data set", "checklist", "test on another place's data"),
    ("004", "patience", "checklist", "Don't train long without patience"),
    ("004", "freeze in stage one", "checklist", "stage one of a two-stage recipe"),
    ("004", "experiment tracking", "checklist", "--log-with"),
    ("004", "regularise small sets", "strategies", "Dropout 0.3 before the head, weight decay 0.01"),
    ("004", "adapters, merged weights or ONNX", "lora", "Every other export merges"),
    ("004", "memory of ViT-L whole and with LoRA", "memory", "6 to 8 GB with LoRA"),
]


def flat(topic: str) -> str:
    return " ".join(GUIDES[topic].text.split())


def test_every_topic_has_a_guide_with_a_title() -> None:
    assert tuple(GUIDES) == TOPICS
    assert all(one.title and one.commands() for one in GUIDES.values())


@pytest.mark.parametrize(("document", "advice", "topic", "words"), ADVICE)
def test_advice_of_the_documents_is_given(document: str, advice: str, topic: str, words: str) -> None:
    assert words in flat(topic), f"{document}: {advice}"


def test_every_document_is_represented() -> None:
    assert {document for document, *_ in ADVICE} == {"000", "001", "002", "003", "004"}


def idle(command: Command) -> Command:
    """The command with its real parameters and nothing behind them."""

    def load() -> Callable[..., Any]:
        @functools.wraps(command.load())
        def nothing(**values: Any) -> None:
            if values.get("architecture"):
                known = set(architecture_names("")) | {"retfound-cfp", "raddino", "chexnet", "runs/NAME"}
                assert values["architecture"] in known, values["architecture"]

        return nothing

    return replace(command, load=load)


def without_engines(group: Group) -> Group:
    return replace(
        group,
        members={
            name: idle(member) if isinstance(member, Command) else without_engines(member)
            for name, member in group.members.items()
        },
    )


@pytest.mark.parametrize("command", sorted({line for one in GUIDES.values() for line in one.commands()}))
def test_every_command_in_a_guide_can_be_typed(command: str) -> None:
    name, *words = shlex.split(command)
    assert name == "medcli"
    assert execute(without_engines(program()), words, {}) == 0


@pytest.mark.parametrize("topic", GUIDES)
def test_every_flag_named_in_a_guide_exists(topic: str) -> None:
    known = {field.flag for command in COMMANDS.values() for field in command.fields.values()}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDES[topic].text))
    assert named <= known, named - known
