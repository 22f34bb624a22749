"""The tests as other processors and other numbers of threads would compute them: ``python -m tests.kernels [PATH…]``.

Numerical libraries choose their routines (kernels) by the processor, and each of these rounds in its own way. Here
others are chosen by hand. Each line of the table also names the libraries that then really computed something else,
lest a setting be tried in vain: the names are those of Intel's and AMD's processors.

On an Intel Xeon with AVX-512 (torch 2.13 with MKL 2024.2 and oneDNN 3.12; NumPy 2.4 and SciPy 1.17 with OpenBLAS 0.3)
all of the variables have an effect. That of MKL_CBWR is one on exponentials and logarithms of tensors, too. Two threads
change the matrix products of OpenBLAS alone. XGBoost has no such setting.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

#: Tests whose outcome depends on what is computed.
NUMERICAL = (
    "tests/space",
    "tests/tuner",
    "tests/priors/test_portfolio.py",
    "tests/priors/test_training.py",
    "tests/data/test_drift.py",
    "tests/evaluators/test_metrics.py",
    "tests/evaluators/xgboost",
    "tests/execution/test_first_rounds.py",
    "tests/execution/test_runner.py",
    "tests/production/test_bootstrap.py",
    "tests/production/test_gate.py",
    "tests/report/test_sensitivity.py",
)
#: What has the libraries take their routines for a processor without AVX-512, and for one without AVX.
OLDER = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
PLAINEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])),
}
TWO_THREADS = {"OMP_NUM_THREADS": "2"}
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "two threads": TWO_THREADS,
    "an older processor": OLDER,
    "the plainest": PLAINEST,
    "the plainest, two threads": PLAINEST | TWO_THREADS,
}


def digests() -> dict[str, str]:
    """Of each library one of what it computes with vectors or matrices."""
    numbers = np.random.default_rng(0).standard_normal((130, 37))
    singles = torch.from_numpy(numbers).float()
    network = torch.nn.LSTM(37, 35)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-1, 1, generator=generator)
        computed = {
            "ATen": singles.softmax(1).numpy(),
            "MKL": (singles @ singles.T).numpy(),
            "oneDNN": network(singles)[0].numpy(),
            "OpenBLAS": numbers @ numbers.T,
            "NumPy": np.exp(numbers),
        }
    return {library: hashlib.sha256(array.tobytes()).hexdigest() for library, array in computed.items()}


def python(values: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{"OMP_NUM_THREADS": "1"}, **values}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def main(paths: Sequence[str]) -> int:
    """Prints a line for each setting, and the tests that failed; returns 1 if any did."""
    usual: dict[str, str] = {}
    failed = False
    print(f"{'setting':<30} {'tests':<32} {'minutes':>7}  computed otherwise", flush=True)
    for setting, values in SETTINGS.items():
        computed = json.loads(python(values, "-m", "tests.kernels", "--digests").stdout)
        usual = usual or computed
        begin = time.monotonic()
        run = python(values, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *(paths or NUMERICAL))
        counts = re.search(r"^(\d+ .*) in [\d.]+s", run.stdout, re.MULTILINE)
        outcome = counts[1] if counts else f"pytest ended with code {run.returncode}"
        changed = ", ".join(library for library in usual if computed[library] != usual[library])
        print(
            f"{setting:<30} {outcome:<32} {(time.monotonic() - begin) / 60:>7.1f}  {changed or 'nothing'}", flush=True
        )
        if run.returncode != 0:
            failed = True
            print("\n".join(re.findall(r"^(?:FAILED|ERROR) .*", run.stdout, re.MULTILINE)) or run.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:] == ["--digests"]:
        print(json.dumps(digests()))
    else:
        sys.exit(main(sys.argv[1:]))
