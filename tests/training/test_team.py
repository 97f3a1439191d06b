"""Two processes as one: their gradients, decisions and files are those of one process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from medcli.data.batches import Batches, open_batches
from medcli.data.load import load_data
from medcli.data.shares import Share
from medcli.settings.groups import DataSettings
from medcli.training.processes import Ended, run_processes
from medcli.training.team import Team

WORK = Path(__file__).with_name("work_of_two.py")


def load_work() -> ModuleType:
    spec = importlib.util.spec_from_file_location("work_of_two", WORK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


work = load_work()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes had after every exchange."""
    out = tmp_path_factory.mktemp("two")
    assert run_processes(2, [sys.executable, str(WORK), str(out)]) == Ended(0, "")
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", work.CASES)
@pytest.mark.parametrize("images", [5, 4, 1])
def test_the_gradient_is_that_of_one_process(both: list[dict[str, Any]], name: str, images: int) -> None:
    alone = work.gradients(name, images, Team())
    for process in both:
        for mine, expected in zip(process["gradients"][name, images], alone, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_what_one_decides_holds_for_all(both: list[dict[str, Any]]) -> None:
    assert [process["agreed"] for process in both] == [15, 15]
    assert [process["from first"] for process in both] == ["of process 0"] * 2
    assert [process["found what the first one made"] for process in both] == [[], ["True"]]


def test_every_process_has_masks_of_its_own_and_they_are_kept(both: list[dict[str, Any]]) -> None:
    assert not torch.equal(both[0]["drawn"], both[1]["drawn"])
    assert set(both[0]["states"]) == {"rng/cpu", "rng/cpu/0", "rng/cpu/1"}
    assert torch.equal(both[0]["states"]["rng/cpu"], both[0]["states"]["rng/cpu/0"])


def test_spread_parameters_come_together_and_go_back(both: list[dict[str, Any]]) -> None:
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(2, 7)).sum().backward()
    optimizer.step()
    for process in both:
        torch.testing.assert_close(process["sharded"], dict(network.state_dict()))
        torch.testing.assert_close(process["restored"], process["sharded"], rtol=0, atol=0)
        torch.testing.assert_close(*process["after"], rtol=0, atol=0)


@pytest.mark.parametrize("of", [1, 2, 3, 8])
@pytest.mark.parametrize("images", [1, 2, 5, 8, 9])
def test_shares_make_up_the_batch_in_order(images: int, of: int) -> None:
    shares = [Share(rank, of) for rank in range(of)]
    counts = shares[0].counts(images)
    own = [share.own(images, 8) for share in shares]
    assert len({len(rows) for rows in own}) == 1
    assert np.concatenate([rows[:count] for rows, count in zip(own, counts, strict=True)]).tolist() == [*range(images)]
    assert all(0 <= rows.min() <= rows.max() < images for rows in own)


def test_no_process_holds_one_image_where_batches_give_it_more() -> None:
    assert Share(1, 2).width(1, 8) == Share(0, 2).width(2, 8) == 2
    assert Share(0, 8).width(8, 8) == 1


@pytest.mark.parametrize("of", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("batches", [1, 4, 7])
def test_blocks_count_every_batch_once_and_take_equally_many(batches: int, of: int) -> None:
    blocks = [Share(rank, of).block(batches) for rank in range(of)]
    assert [at for _, start, stop in blocks for at in range(start, stop)] == [*range(batches)]
    each = -(-batches // of)
    assert all(0 <= begin <= start and stop <= begin + each <= batches for begin, start, stop in blocks if stop > start)


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    random = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = random.integers(0, 255, (11, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(11) % 2)[:, None]
    np.savez(tmp_path / "set.npz", **arrays)
    (data,) = load_data(DataSettings(data=(str(tmp_path / "set.npz"),)))
    from medcli.data.dataset import Preprocessing

    size = Preprocessing(image_size=8, channels=1, mean=(0.0,), std=(1.0,))
    return open_batches(data.splits["train"], size, batch_size=4, seed=3, shuffle=True)


def test_shared_batches_hold_the_images_of_the_whole_ones(batches: Batches) -> None:
    parts = [batches.shared(Share(rank, 3)) for rank in range(3)]
    for whole, *shares in zip(batches.epoch(2), *(part.epoch(2) for part in parts), strict=True):
        counts = Share(0, 3).counts(len(whole.index))
        images = torch.cat([share.images[:count] for share, count in zip(shares, counts, strict=True)])
        assert torch.equal(images, whole.images)
        for share in shares:
            assert torch.equal(share.index, whole.index)
            assert torch.equal(share.labels, whole.labels)
            assert torch.equal(share.images, batches_of(batches, share.held))


def batches_of(batches: Batches, positions: torch.Tensor) -> torch.Tensor:
    every = {int(at): image for batch in batches.epoch(0) for at, image in zip(batch.index, batch.images, strict=True)}
    return torch.stack([every[int(at)] for at in positions])


def test_alone_everything_is_as_it_was(batches: Batches) -> None:
    team, batch = Team(), next(batches.epoch(0))
    raw = torch.rand(4, 2)
    assert team.whole(raw, batch) is raw
    assert (team.factor(batch), team.agreed(7), team.from_first("x"), team.one_at_first(lambda: 5)) == (1, 7, "x", 5)
