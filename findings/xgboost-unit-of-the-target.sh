#!/usr/bin/env bash
# XGBoost 3.2.0: how well it regresses depends on the unit of the target.
#
# Behaviour: the same rows and the same noise-free function, the target multiplied by 1, 1e-2, 1e-3, 1e-4 and 1e-5.
#   Each split must reduce the loss by at least about 1e-6, in squared units of the target, whatever `gamma` says (it is
#   0 here). With a target of small numbers (a rate, a price in millions) no split does, and all trees are one leaf:
#   the model is a constant. Nothing is printed or raised.
# Likely guess: trees do not mind the scale of features or target; regularisation terms aside, R² stays what it is.
# What to do: divide the target by its standard deviation in float64, and multiply the predictions.
# Seen (R² on 1000 new rows, nodes in 100 trees):
#   1e+00 0.934 2676 | 1e-02 0.926 1834 | 1e-03 0.796 422 | 1e-04 0.397 110 | 1e-05 -0.000 100
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check xgboost-cpu==3.2.0 numpy==2.4.2 pandas==2.3.3 scikit-learn==1.8.0
OMP_NUM_THREADS=1 env/bin/python - <<'PY'
import numpy as np
import xgboost

rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 4))
y = x[:, 0] + x[:, 1] * x[:, 2]
seen = {}
for factor in (1, 1e-2, 1e-3, 1e-4, 1e-5):
    model = xgboost.XGBRegressor(n_estimators=100, max_depth=4, n_jobs=1, random_state=0)
    model.fit(x[:1000], factor * y[:1000])
    target, answer = factor * y[1000:], model.predict(x[1000:]).astype(np.float64)
    r2 = 1 - np.mean((target - answer) ** 2) / target.var()
    nodes = len(model.get_booster().trees_to_dataframe())
    seen[factor] = r2, nodes
    print(f"{factor:.0e}  R2 {r2:6.3f}  nodes {nodes}")
assert xgboost.__version__ == "3.2.0"
assert seen[1][0] > 0.9, "it learns the function"
assert seen[1e-3][0] < 0.85, "a thousandth of the unit costs a good part of it"
assert abs(seen[1e-5][0]) < 0.01 and seen[1e-5][1] == 100, "a hundred trees of one leaf"
PY
echo "as described"
