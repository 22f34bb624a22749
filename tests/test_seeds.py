from __future__ import annotations

from rlhpo_core.seeds import derive_seed


def test_every_part_of_the_address_gives_another_seed_and_the_same_address_the_same() -> None:
    seeds = {
        derive_seed(seed, round_, purpose, index)
        for seed in (0, 1)
        for round_ in (0, 1, 10)
        for purpose in ("a", "b")
        for index in (0, 1)
    }
    assert len(seeds) == 24
    assert derive_seed(1, 10, "b", 1) in seeds
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_stay_what_they_were() -> None:
    """A saved study draws the same numbers after an update."""
    assert derive_seed(0, 0, "agent") == 5632293819844349689
