"""One situation each: goals, machines, sizes, kinds of pictures, the guides of three sets, and every contradiction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureCard, MemoryNote, SizeRule, WeightCard
from medcli.recommend.candidates import Candidate, candidates
from medcli.recommend.engine import Advice, Recommendation, recommend
from medcli.recommend.memory import estimate, largest_batch
from medcli.recommend.rules import rules
from medcli.recommend.situation import Situation
from medcli.registry.discovery import discover

Advise = Callable[..., Advice]

RANKED = {
    "learn": ("resnet50", "resnet18", "custom1"),
    "prototype": ("resnet18", "resnet50", "custom1"),
    "accuracy": ("densenet121", "vit_base_patch16_224", "resnet18"),
    "production": ("densenet121", "resnet50", "resnet18"),
    "research": ("resnet50", "densenet121", "vit_base_patch16_224"),
    "competition": ("densenet121", "vit_base_patch16_224", "resnet50"),
    "speed": ("resnet18", "efficientnet_b0", "mobilenetv3_large_100"),
    "edge": ("efficientnet_b0", "efficientnet_lite0", "mobilenetv3_large_100"),
}
DINO, DENSE, VIT = "vit_base_patch16_224", "densenet121", "vit_base_patch16_224"


def names(advice: Advice) -> tuple[str, ...]:
    return tuple(one.candidate.name for one in advice.recommendations)


def first(advice: Advice) -> Recommendation:
    return advice.recommendations[0]


def chosen(one: Recommendation, name: str) -> object:
    return one.settings[name].value


@pytest.mark.parametrize("goal", RANKED)
def test_each_goal_has_its_three(advise: Advise, goal: str) -> None:
    advice = advise(goal=goal, images=10_000)
    assert names(advice) == RANKED[goal]
    assert [one.rank for one in advice.recommendations] == [1, 2, 3]
    assert all(one.reasons for one in advice.recommendations)
    assert all(reason.source in rules().sources for one in advice.recommendations for reason in one.reasons)


def test_prototypes_are_frozen_probes_at_128_px(advise: Advise) -> None:
    one = first(advise(goal="prototype", images=10_000))
    assert (chosen(one, "strategy"), chosen(one, "image_size")) == ("frozen", 128)
    assert one.settings["image_size"].source == "doerrich"


def test_edge_keeps_to_small_networks(advise: Advise) -> None:
    for one in advise(goal="edge").recommendations:
        assert (one.candidate.card.params or 0) <= 10_000_000


def test_an_ensemble_is_named_for_competitions(advise: Advise) -> None:
    assert any("ensemble" in note for note in advise(goal="competition").notes)


@pytest.mark.parametrize("goal", RANKED)
@pytest.mark.parametrize("gpu", [0, 4, 6, 8, 12, 16, 24])
def test_each_machine_gets_what_fits(advise: Advise, goal: str, gpu: float) -> None:
    advice = advise(goal=goal, gpu_gb=gpu, images=20_000)
    assert len(advice.recommendations) == 3
    for one in advice.recommendations:
        card, size = one.candidate.card, chosen(one, "image_size")
        assert isinstance(size, int)
        if gpu:
            fits = estimate(card, str(chosen(one, "strategy")), size, gpu, rules())
            assert fits is not None
            assert one.batch.size <= fits
        else:
            assert one.batch.size == 16
            assert (card.gmacs or 0) * (size / (card.input_size or size)) ** 2 <= 5
        assert one.batch.estimated == (one.batch.why.startswith("an estimate"))


def test_without_a_gpu_the_named_networks_lead(advise: Advise) -> None:
    assert names(advise(goal="learn", gpu_gb=0))[:2] == ("resnet18", "resnet50")
    assert "custom1" in names(advise(goal="prototype", gpu_gb=0))
    left_out = advise(goal="accuracy", gpu_gb=0).left_out
    assert [one.name for one in left_out] == [VIT]
    assert "GPU" in left_out[0].why


def test_a_large_transformer_needs_16_gb(advise: Advise) -> None:
    assert "vit_large_patch16_224" not in names(advise(goal="competition", gpu_gb=12))
    assert "vit_large_patch16_224" in names(advise(goal="competition", gpu_gb=16))


@pytest.mark.parametrize(
    ("architecture", "gpu", "batch", "who"),
    [
        ("resnet50", 8, 64, "comparison"),
        ("resnet50", 16, 128, "comparison"),
        ("resnet50", 24, 256, "comparison"),
        ("vit_base_patch16_224", 8, 32, "comparison"),
        ("vit_base_patch16_224", 16, 64, "comparison"),
        ("vit_base_patch16_224", 24, 128, "comparison"),
        ("densenet121", 8, 64, "CSI-Predictor"),
        ("custom1", 4, 128, "CSI-Predictor"),
    ],
)
def test_reported_batches_are_those_of_the_documents(architecture: str, gpu: float, batch: int, who: str) -> None:
    (one,) = candidates(discover({"MEDCLI_PLUGINS": "none"}), rules(), [architecture])
    found = largest_batch(one.card, "full", one.card.input_size or 224, Situation(gpu_gb=gpu), rules())
    assert found.size == batch
    assert not found.estimated
    assert who in found.reported
    assert "reported for" in found.why


def test_a_number_nobody_reports_is_called_an_estimate(advise: Advise) -> None:
    batch = first(advise(goal="prototype", images=50_000)).batch
    assert batch.estimated
    assert batch.why == "an estimate, nobody reports one"


def test_a_report_that_cannot_be_is_held_against_the_estimate() -> None:
    """48 pictures of 300 px on 8 GB: a step of EfficientNet-B3 keeps 313 MB a picture in 32 bits, half in 16."""
    (one,) = candidates(discover({"MEDCLI_PLUGINS": "none"}), rules(), ["efficientnet_b3"])
    batch = largest_batch(one.card, "full", 300, Situation(gpu_gb=8), rules())
    assert batch.size * 313 * 0.5 < 8000
    assert batch.size < 48
    assert batch.estimated
    assert "48 is reported for 8 GB" in batch.why


def test_a_report_for_lora_is_none_for_training_everything() -> None:
    notes = (
        MemoryNote(gpu_gb=8, batch_size=32, source="all weights"),
        MemoryNote(gpu_gb=8, batch_size=48, source="LoRA, 6 to 8 GB"),
    )
    card = ArchitectureCard(name="x", summary="x", memory=notes)
    assert largest_batch(card, "full", 224, Situation(gpu_gb=8), rules()).size == 32
    assert largest_batch(card, "lora", 224, Situation(gpu_gb=8), rules()).size == 48


def test_small_data_get_small_batches(advise: Advise) -> None:
    assert first(advise(goal="prototype", images=546)).batch.size == 24
    assert first(advise(goal="prototype", images=60)).batch.size == 8


@pytest.mark.parametrize(
    ("images", "strategy"),
    [
        (1_000 - 1, "frozen"),
        (1_000, "lp-ft"),
        (5_000, "layerwise"),
        (50_000, "full"),
        (100_000, "full"),
        (10**6, "full"),
    ],
)
def test_each_size_has_its_strategy(advise: Advise, images: int, strategy: str) -> None:
    assert chosen(first(advise(goal="production", images=images)), "strategy") == strategy


def test_a_million_images_bring_the_transformer_forward(advise: Advise) -> None:
    assert names(advise(images=1_000_000))[0] == VIT
    assert names(advise(images=100_000))[0] == DENSE


def test_a_size_that_is_not_known_is_asked_for(advise: Advise) -> None:
    advice = advise()
    assert chosen(first(advice), "strategy") == "layerwise"
    assert any("--images N" in note for note in advice.notes)


LEADERS = [
    ("chest-xray", "raddino"),
    ("fundus", "retfound-cfp"),
    ("oct", DENSE),
    ("dermoscopy", DENSE),
    ("histology", DINO),
    ("ct", VIT),
    ("ultrasound", DINO),
    ("blood", DENSE),
    ("tissue", DENSE),
    ("mri", DENSE),
    ("xray", DENSE),
    ("mammography", DENSE),
]


@pytest.mark.parametrize(("modality", "leader"), LEADERS)
def test_each_kind_of_picture_has_its_leader(advise: Advise, modality: str, leader: str) -> None:
    assert names(advise(modality=modality, images=10_000))[0] == leader


def test_every_known_kind_of_picture_is_tested() -> None:
    assert {modality for modality, _ in LEADERS} == set(rules().modalities)


@pytest.mark.parametrize("modality", ["chest-xray", "fundus", "oct"])
def test_specialists_are_named_before_they_are_installed(advise: Advise, modality: str) -> None:
    (one, *_) = [one for one in advise(modality=modality).recommendations if not one.candidate.installed]
    assert one.candidate.name in {"raddino", "retfound-cfp", "retfound-oct"}
    assert one.command is None
    assert one.install == f"pip install {one.candidate.distribution}"


def test_specialists_need_a_known_kind_of_picture(advise: Advise) -> None:
    advice = advise()
    assert not set(names(advice)) & set(rules().packages)
    assert any("--modality" in note for note in advice.notes)


@pytest.mark.parametrize(
    ("modality", "flip"),
    [("chest-xray", "none"), ("dermoscopy", "both"), ("histology", "both"), ("oct", "horizontal"), ("ct", "none")],
)
def test_augmentation_follows_the_kind_of_picture(advise: Advise, modality: str, flip: str) -> None:
    for one in advise(modality=modality).recommendations:
        assert chosen(one, "flip") == flip


def test_labels_that_name_a_side_forbid_mirroring(advise: Advise) -> None:
    assert {chosen(one, "flip") for one in advise(modality="fundus", sided=True).recommendations} == {"none"}


def test_rad_dino_keeps_its_own_size_and_is_frozen(advise: Advise) -> None:
    one = first(advise(modality="chest-xray", images=100_000))
    assert (one.candidate.name, chosen(one, "strategy"), chosen(one, "image_size")) == ("raddino", "frozen", 518)


@pytest.mark.parametrize(("gpu", "strategy"), [(4, "frozen"), (8, "lora"), (16, "layerwise")])
def test_retfound_is_trained_as_memory_allows(advise: Advise, gpu: float, strategy: str) -> None:
    one = first(advise(modality="fundus", images=3_600, gpu_gb=gpu))
    assert (one.candidate.name, chosen(one, "strategy")) == ("retfound-cfp", strategy)


def test_the_guide_of_pathmnist(advise: Advise) -> None:
    advice = advise(known_set="pathmnist", modality="histology", task="multiclass", images=89_996)
    assert names(advice) == (DINO, DENSE, "resnet18")
    assert {chosen(one, "loss") for one in advice.recommendations} == {"ce"}
    assert chosen(advice.recommendations[1], "strategy") == "layerwise"
    assert chosen(advice.recommendations[0], "weights") == "dino"
    assert {"path-imbalance", "path-ranking"} <= {one.id for one in advice.contradictions}


def test_the_guide_of_chestmnist(advise: Advise) -> None:
    advice = advise(known_set="chestmnist", modality="chest-xray", task="multilabel", images=78_468, imbalance=87.5)
    assert names(advice) == (DENSE, "raddino", "chexnet")
    one = first(advice)
    assert (chosen(one, "loss"), chosen(one, "class_weights")) == ("bce", "balanced")
    assert (chosen(one, "augment"), chosen(one, "flip"), chosen(one, "strategy")) == ("light", "none", "layerwise")
    assert any("94.7 %" in note for note in advice.notes)
    assert any("calibrate" in note for note in advice.notes)


def test_the_guide_of_dermamnist(advise: Advise) -> None:
    advice = advise(known_set="dermamnist", modality="dermoscopy", task="multiclass", images=7_007, imbalance=58.3)
    assert names(advice) == (DENSE, DINO, "resnet18")
    one = first(advice)
    assert (chosen(one, "loss"), chosen(one, "focal_gamma"), chosen(one, "class_weights")) == ("focal", 2.5, "none")
    assert (chosen(one, "augment"), chosen(one, "strategy")) == ("medium", "gradual")
    assert any("886 of the 2005" in note for note in advice.notes)


def test_imbalance_and_tasks_choose_the_loss(advise: Advise) -> None:
    uneven = first(advise(task="multiclass", imbalance=20))
    assert (chosen(uneven, "loss"), chosen(uneven, "class_weights")) == ("ce", "sqrt")
    assert "loss" not in first(advise(task="multiclass", imbalance=3)).settings
    assert chosen(first(advise(task="ordinal", imbalance=20)), "loss") == "corn"
    assert "class_weights" not in first(advise(task="ordinal", imbalance=20)).settings
    assert chosen(first(advise(task="multilabel")), "loss") == "bce"


CONTRADICTIONS: dict[str, dict[str, object]] = {
    "efficientnet-accuracy": {"goal": "accuracy"},
    "vit-above-100k": {"goal": "speed", "images": 100_000},
    "vit-large-competition": {"goal": "competition"},
    "efficientnet-speed": {"goal": "speed"},
    "lora-generalises": {"modality": "fundus"},
    "retfound-pooling": {"modality": "fundus"},
    "unweighted-kappa": {"modality": "fundus", "task": "ordinal"},
    "raddino-fine-tuning": {"modality": "chest-xray"},
    "raddino-production": {"modality": "chest-xray", "goal": "production"},
    "retfound-production": {"modality": "fundus", "goal": "production"},
    "path-imbalance": {"known_set": "pathmnist", "modality": "histology"},
    "path-ranking": {"known_set": "pathmnist", "modality": "histology"},
    "chest-imbalance": {"known_set": "chestmnist", "modality": "chest-xray"},
    "chest-ranking": {"modality": "chest-xray"},
    "derma-imbalance": {"known_set": "dermamnist", "modality": "dermoscopy"},
    "derma-ranking": {"known_set": "dermamnist", "modality": "dermoscopy"},
    "efficientnet-epochs": {"goal": "edge"},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_each_contradiction_is_said_where_it_matters(advise: Advise, name: str) -> None:
    said = {one.id: one for one in advise(**CONTRADICTIONS[name]).contradictions}
    assert name in said
    assert rules().sources[said[name].document].kind == "document"
    assert rules().sources[said[name].evidence].kind == "evidence"
    quiet = advise(goal="learn", modality="mri").contradictions
    assert name not in {one.id for one in quiet}


def test_every_contradiction_is_tested() -> None:
    assert {one.id for one in rules().contradictions} == set(CONTRADICTIONS)


def test_evidence_wins_over_the_documents_that_it_contradicts(advise: Advise) -> None:
    for goal in ("accuracy", "production", "research"):
        assert not any(name.startswith("efficientnet") for name in names(advise(goal=goal)))
    assert names(advise(goal="speed", images=200_000))[0] == "resnet18"
    assert names(advise(goal="production", modality="chest-xray"))[0] != "raddino"
    assert names(advise(goal="production", modality="fundus"))[0] != "retfound-cfp"


def test_frozen_features_are_not_offered_where_they_were_poor(advise: Advise) -> None:
    """DINO's frozen features: 73.7 % on OCTMNIST and 64.0 % on TissueMNIST, 13 and 10 points below DenseNet-121."""
    for modality in ("oct", "tissue", "ct"):
        for one in advise(modality=modality, images=90_000).recommendations:
            assert "weights" not in one.settings


def test_what_was_measured_is_said_first(advise: Advise) -> None:
    kinds = [rules().sources[reason.source].kind for reason in first(advise(images=1_000)).reasons]
    assert kinds == sorted(kinds, key=("evidence", "document", "practice").index)


def test_the_order_does_not_depend_on_the_order_of_what_is_installed(offered: tuple[Candidate, ...]) -> None:
    for goal in RANKED:
        now = Situation(goal=goal, modality="fundus")
        assert names(recommend(now, offered, rules())) == names(recommend(now, offered[::-1], rules()))


def installed(name: str, modality: str, *weights: WeightCard, size: SizeRule | None = None) -> Candidate:
    card = ArchitectureCard(
        name=name, summary="x", params=5_000_000, gmacs=1.0, input_size=100, family="resnet", feature_dim=8,
        modalities=(modality,), weights=weights, default_weights=weights[0].tag if weights else "",
        size=size or SizeRule(),
    )  # fmt: skip
    return Candidate(name, name, card, f"medcli-{name}", True, (modality,))


def test_a_plugin_that_no_rule_knows_is_recommended_by_its_card(offered: tuple[Candidate, ...]) -> None:
    mine = installed("mynet", "mri", WeightCard(tag="own", source="me/mynet"), size=SizeRule(minimum=10, multiple=10))
    advice = recommend(Situation(modality="mri"), (*offered, mine), rules())
    (one,) = [one for one in advice.recommendations if one.candidate is mine]
    assert chosen(one, "image_size") == 100
    assert one.command is not None
    assert mine not in [
        one.candidate for one in recommend(Situation(modality="ct"), (*offered, mine), rules()).recommendations
    ]


def test_gated_and_restricted_weights_are_said() -> None:
    gated = WeightCard(tag="a", source="me/net", gated=True, licence="cc-by-nc-4.0")
    (one,) = recommend(
        Situation(goal="production"), (installed("net", "mri", gated),), rules(), asked=True
    ).recommendations
    assert any("registration" in said for said in one.cautions)
    assert any("cc-by-nc-4.0" in said for said in one.cautions)
    (one,) = recommend(Situation(), (installed("net", "mri"),), rules(), asked=True).recommendations
    assert any("come from a file" in said for said in one.cautions)
    assert one.command is not None
    assert "--weights FILE" in one.command.text


@pytest.mark.parametrize(
    ("goal", "architecture", "gpu", "why"),
    [
        ("edge", "vit_huge_patch14_224", 8, "631 M parameters"),
        ("speed", "efficientnet_b7", 8, "multiply-adds"),
        ("accuracy", "vit_large_patch16_224", 0, "without a GPU"),
        ("accuracy", "vit_huge_patch14_224", 2, "does not fit"),
    ],
)
def test_impossible_requests_are_refused(goal: str, architecture: str, gpu: float, why: str) -> None:
    asked = candidates(discover({"MEDCLI_PLUGINS": "none"}), rules(), [architecture])
    with pytest.raises(UsageProblem, match=why) as caught:
        recommend(Situation(goal=goal, gpu_gb=gpu), asked, rules(), asked=True)
    assert caught.value.code == "impossible-request"
    assert "medcli models recommend --goal" in str(caught.value.hint)


def test_where_nothing_fits_it_is_said(offered: tuple[Candidate, ...]) -> None:
    with pytest.raises(UsageProblem, match="nothing can be recommended"):
        recommend(Situation(gpu_gb=0.5, goal="competition"), offered, rules())


def test_training_less_where_all_of_it_does_not_fit() -> None:
    asked = candidates(discover({"MEDCLI_PLUGINS": "none"}), rules(), ["vit_large_patch16_224"])
    (one,) = recommend(Situation(gpu_gb=4, images=20_000), asked, rules(), asked=True).recommendations
    assert chosen(one, "strategy") == "lora"
    assert "does not fit" in one.settings["strategy"].why


def test_named_architectures_are_judged_even_where_nothing_speaks_for_them() -> None:
    asked = candidates(discover({"MEDCLI_PLUGINS": "none"}), rules(), ["regnetx_032", "densenet121"])
    advice = recommend(Situation(images=9_000), asked, rules(), asked=True)
    assert names(advice) == ("densenet121", "regnetx_032")
    assert advice.recommendations[1].reasons == ()


def test_an_unknown_architecture_is_named_with_its_neighbours() -> None:
    with pytest.raises(UsageProblem, match="unknown architecture"):
        candidates(discover({"MEDCLI_PLUGINS": "none"}), rules(), ["resnet5000"])
