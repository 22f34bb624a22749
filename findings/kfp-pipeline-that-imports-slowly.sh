#!/usr/bin/env bash
# kfp 2.17.0: a pipeline that compiles in a tenth of a second as a script takes seconds when its module is imported.
#
# Behaviour: each setter of a task (set_cpu_limit, set_memory_request, ...) calls inspect.stack(), to name itself in an
#   error that is hardly ever raised. While a module is imported, the stack holds frames of Python's frozen import
#   system, which have no source; for each of them `inspect` searches all modules that are loaded. The time grows with
#   setters x frames x modules: 0.9 to 2 s with KFP alone loaded, 7 s with MLflow, torch and scikit-learn as well.
# Likely guess: a setter sets a field; where a pipeline is defined does not matter. @dsl.pipeline at the top of a
#   module is how all examples write it, and it runs when the module is imported.
# What follows: tests that compile at import make the collection of tests slow in each worker; a service or a command
#   that imports a module with a pipeline starts seconds later. Define pipelines inside a function that is called.
# Seen (20 tasks of 4 setters): in a script 0.03 s, in a module that is imported 0.88 s of CPU.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check kfp==2.17.0
cat >definition.py <<'PY'
import time

from kfp import dsl


@dsl.component(base_image="python:3.11-slim")
def step(n: int) -> int:
    return n


def many(n: int = 1):
    for _ in range(20):
        task = step(n=n)
        task.set_cpu_request("1").set_cpu_limit("1").set_memory_request("1G").set_memory_limit("1G")


def seconds() -> float:
    begun = time.process_time()
    dsl.pipeline(many)
    return time.process_time() - begun
PY
cat >imported.py <<'PY'
import definition

SECONDS = definition.seconds()
PY
cat >script.py <<'PY'
import kfp

import definition

assert kfp.__version__ == "2.17.0"
definition.seconds()  # whatever is done once
script = definition.seconds()
import imported  # noqa: E402

print(f"in a script {script:.2f} s, in a module that is imported {imported.SECONDS:.2f} s of CPU")
assert imported.SECONDS > 5 * script, "many times as long"
PY
env/bin/python script.py
echo "as described"
