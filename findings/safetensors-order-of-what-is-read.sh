#!/usr/bin/env bash
# safetensors 0.8.0: the tensors of a file come in another order each time that it is read.
#
# Behaviour: `safetensors.numpy.load` (and that of torch) gives a dict whose order differs from one call to the next,
#   also within one process and with PYTHONHASHSEED set; `safe_open(...).keys()` of the same file is sorted.
# Likely guess: the order in which the tensors were saved, or that of their names, as any dict read from a file has it.
# What follows: a checksum over the items of what was read, or an optimiser's state that is put together from them, is
#   never the same twice. Sort by name.
# Seen: 64 names, 20 loads of the same bytes: 20 different orders; the keys of an open file are sorted.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
PYTHONHASHSEED=0 env/bin/python - <<'PY'
import numpy as np
import safetensors
from safetensors import safe_open
from safetensors.numpy import load, save

assert safetensors.__version__ == "0.8.0"
names = [f"layer{index:02d}" for index in range(64)]
data = save({name: np.zeros(1, np.float32) for name in names})
open("file.safetensors", "wb").write(data)
orders = {tuple(load(data)) for _ in range(20)}
print(f"load: {len(orders)} different orders in 20 loads; names sorted in {tuple(names) in orders}")
assert len(orders) > 10
with safe_open("file.safetensors", "np") as file:
    print("keys of an open file sorted:", list(file.keys()) == names)
    assert list(file.keys()) == names
PY
echo "as described"
