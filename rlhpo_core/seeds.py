"""One seed for each random draw."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, round_: int, purpose: str, index: int = 0) -> int:
    """An independent 63-bit seed per (study seed, round, purpose, index).

    Args:
        seed: Of the study.
        round_: Counted from 0.
        purpose: What is drawn; draws for different purposes are independent.
        index: Of the draw, where a round has several.
    """
    digest = hashlib.sha256(f"{seed}/{round_}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
