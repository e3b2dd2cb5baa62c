"""Orders, batches of ranks and resumption of ``training.data.sampling``."""

import numpy as np
import pytest

from training.data.sampling import EpochSampler, SampleKey, counter_generator, permutation


def positions(sampler: EpochSampler, *, epoch: int | None = None) -> list[list[int]]:
    if epoch is not None:
        sampler.set_epoch(epoch)
    return [[key.position for key in batch] for batch in sampler]


def test_permutation_holds_every_position_once_and_depends_on_seed_and_epoch() -> None:
    orders = {(seed, epoch): permutation(500, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)}
    for order in orders.values():
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert len({tuple(order.tolist()) for order in orders.values()}) == 4
    np.testing.assert_array_equal(orders[0, 1], permutation(500, seed=0, epoch=1))


def test_permutation_is_the_one_that_philox_defines() -> None:
    """Computed here by the ten rounds of the published algorithm, so that no version of numpy can change it."""
    seed, epoch, count = 5, 3, 8
    multipliers, weyl, mask = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B), 2**64
    raw: list[int] = []
    for block in range(1, count // 4 + 1):
        word, key = [block, 0, 0, 0], [seed, epoch]
        for _ in range(10):
            high0, low0 = divmod(multipliers[0] * word[0], mask)
            high1, low1 = divmod(multipliers[1] * word[2], mask)
            word = [high1 ^ word[1] ^ key[0], low1, high0 ^ word[3] ^ key[1], low0]
            key = [(key[0] + weyl[0]) % mask, (key[1] + weyl[1]) % mask]
        raw += word
    expected = sorted(range(count), key=raw.__getitem__)
    assert permutation(count, seed=seed, epoch=epoch).tolist() == expected


def test_permutation_is_close_to_uniform() -> None:
    first = np.array([permutation(4, seed=0, epoch=epoch)[0] for epoch in range(800)])
    # Each of 4 positions comes first 200 times with a standard deviation of 12.2; five of them either way.
    assert np.all(np.abs(np.bincount(first, minlength=4) - 200) < 61)


def test_streams_of_images_differ_and_repeat() -> None:
    draws = {
        key: tuple(counter_generator(seed=key[0], epoch=key[1], position=key[2]).random(3).tolist())
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**64 - 1, 0, 0)]
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[0, 1, 0] == tuple(counter_generator(seed=0, epoch=1, position=0).random(3).tolist())


@pytest.mark.parametrize("name", ["seed", "epoch", "position"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_outside_64_bits_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} {value}, expected 0 <="):
        counter_generator(**{"seed": 0, "epoch": 0, "position": 0, name: value})


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("count", [12, 13, 17, 23])
def test_ranks_together_are_one_process_with_a_larger_batch(world_size: int, drop_last: bool, count: int) -> None:
    alone = positions(EpochSampler(count, 2 * world_size, seed=7, drop_last=drop_last), epoch=4)
    ranks = [
        positions(EpochSampler(count, 2, seed=7, drop_last=drop_last, rank=rank, world_size=world_size), epoch=4)
        for rank in range(world_size)
    ]
    for number, batch in enumerate(alone):
        assert [position for mine in ranks if number < len(mine) for position in mine[number]] == batch
    assert max(len(mine) for mine in ranks) == len(alone)
    if drop_last:
        assert {len(mine) for mine in ranks} == {count // (2 * world_size)}
        assert all(len(batch) == 2 for mine in ranks for batch in mine)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 12, 16])
def test_evaluation_gives_every_image_once_and_no_empty_batch(world_size: int, count: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        sampler = EpochSampler(count, 3, seed=0, rank=rank, world_size=world_size, shuffle=False, drop_last=False)
        batches = positions(sampler)
        assert len(batches) == len(sampler)
        assert all(1 <= len(batch) <= 3 for batch in batches)
        seen += [position for batch in batches for position in batch]
    assert sorted(seen) == list(range(count))


def test_start_batch_continues_where_the_epoch_was_left() -> None:
    whole = positions(EpochSampler(20, 3, seed=1), epoch=2)
    assert len(whole) == 6
    for start in range(7):
        sampler = EpochSampler(20, 3, seed=1)
        sampler.set_epoch(2, start_batch=start)
        assert positions(sampler) == whole[start:]
        assert len(sampler) == 6 - start
        assert sampler.batches_per_epoch == 6


def test_set_epoch_goes_on_with_a_whole_epoch_and_leaves_an_iteration_alone() -> None:
    sampler = EpochSampler(10, 2, seed=1)
    sampler.set_epoch(0, start_batch=3)
    under_way = iter(sampler)
    sampler.set_epoch(1)
    assert [batch[0].epoch for batch in under_way] == [0, 0]
    assert positions(sampler) == positions(EpochSampler(10, 2, seed=1), epoch=1)
    assert next(iter(sampler))[0] == SampleKey(1, int(permutation(10, seed=1, epoch=1)[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "at least 1 of each"),
        ({"batch_size": 0}, "at least 1 of each"),
        ({"rank": 2, "world_size": 2}, "rank 2, expected 0 <= rank < world size 2"),
        ({"count": 7, "batch_size": 4, "world_size": 2}, "batch size of at most 3"),
    ],
)
def test_numbers_that_make_no_sampler_are_refused(options: dict[str, int], message: str) -> None:
    arguments = {"count": 10, "batch_size": 2, "seed": 0} | options
    with pytest.raises(ValueError, match=message):
        EpochSampler(arguments.pop("count"), arguments.pop("batch_size"), **arguments)


@pytest.mark.parametrize(
    ("epoch", "start_batch", "message"),
    [(-1, 0, "epoch -1"), (0, 6, "start batch 6, expected 0 <= start batch <= 5")],
)
def test_numbers_that_make_no_epoch_are_refused(epoch: int, start_batch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochSampler(10, 2, seed=0).set_epoch(epoch, start_batch=start_batch)
