from __future__ import annotations

import numpy as np
import pytest

from rlhpo_core.space.parameters import Bool, Categorical, Fixed, Float, Int, Tunable, describe_domain, possible, same

DEPTH = Int(name="depth", low=1, high=6)
RATE = Float(name="rate", low=0.001, high=1.0, log=True)
SHARE = Float(name="share", low=0.0, high=2.0)
KIND = Categorical(name="kind", choices=("a", "b", 3))
FLAG = Bool(name="flag")
ALL: tuple[Tunable, ...] = (DEPTH, RATE, SHARE, KIND, FLAG)


@pytest.mark.parametrize("parameter", ALL, ids=lambda parameter: parameter.name)
def test_codes_come_back_from_actions_features_and_values(parameter: Tunable) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, 200)
    codes = parameter.codes(actions)
    assert codes.shape == (200,)
    assert np.array_equal(parameter.codes(parameter.actions(codes)), codes)
    features = parameter.features(codes)
    assert features.shape == (200, len(parameter.values) if isinstance(parameter, Categorical | Bool) else 1)
    assert 0 <= features.min() <= features.max() <= 1
    assert np.array_equal(parameter.codes_of_features(features), codes)
    assert [parameter.code(parameter.value(code)) for code in codes] == codes.tolist()


def test_actions_run_from_one_end_to_the_other() -> None:
    ends, middle = np.array([-1.0, 1.0]), np.array([0.0])
    assert DEPTH.codes(ends).tolist() == [1, 6]
    assert RATE.codes(ends).tolist() == [0.001, 1.0]
    assert RATE.codes(middle).tolist() == [0.03162278], "seven significant digits"
    assert SHARE.codes(np.array([0.123456789])).tolist() == [1.123457], "a millionth of the range"
    assert KIND.codes(ends).tolist() == [0, 2]
    assert KIND.actions(np.array([0.0, 1.0, 2.0])) == pytest.approx([-2 / 3, 0, 2 / 3])


def test_values_have_the_types_that_people_write() -> None:
    assert [type(p.value(1.0)) for p in (DEPTH, SHARE, FLAG)] == [int, float, bool]
    assert KIND.value(2.0) == 3


def test_true_is_not_one() -> None:
    assert same(1, 1.0)
    assert not same(True, 1)
    assert not same(0, False)
    assert possible(FLAG, [True, 1, "x"]) == [True]
    assert possible(DEPTH, [True, 1, 2.0, 2.5, 7]) == [1, 2.0]
    assert possible(Fixed(name="f", value=1), [1, 2, True]) == [1]


def test_domains_in_words() -> None:
    assert [describe_domain(p) for p in (DEPTH, SHARE, KIND, FLAG, Fixed(name="f", value="x"))] == [
        "int in [1, 6]",
        "float in [0.0, 2.0]",
        "one of ['a', 'b', 3]",
        "one of [False, True]",
        "fixed at 'x'",
    ]
