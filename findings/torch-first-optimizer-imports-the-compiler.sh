#!/usr/bin/env bash
# torch 2.13.0: the first optimizer that a process makes has torch import its compiler.
#
# Behaviour: `torch.optim.SGD([parameter], lr=0.1)` imports torch._dynamo, torch._inductor and sympy, hundreds of modules
#   and about a second of CPU, in a process that compiles nothing. The second optimizer of the process imports nothing.
#   `import torch` and `import torch.optim` do not import them, nor do a forward and a backward pass.
# Likely guess: making an optimizer is a few Python objects; what is slow to import comes with `import torch`, or with
#   the first use of torch.compile.
# Who meets it: short processes that restore a training, such as a pipeline's steps, commands, and tests that each make
#   an optimizer only to load its state. Keep the state alone, and make the optimizer where it steps.
# Seen with: torch 2.13.0, Python 3.11. Output:
#   optimizer 1: imports torch._dynamo, torch._inductor, sympy
#   optimizer 2: imports 0 modules
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import torch.optim

COMPILER = ("torch._dynamo", "torch._inductor", "sympy")
parameter = torch.nn.Parameter(torch.ones(3))
(parameter**2).sum().backward()
assert not any(name in sys.modules for name in COMPILER), "it is imported earlier by now"

before = set(sys.modules)
torch.optim.SGD([parameter], lr=0.1)
first = set(sys.modules) - before
assert set(COMPILER) <= first and len(first) > 100, sorted(first)[:10]
print("optimizer 1: imports", ", ".join(COMPILER))

before = set(sys.modules)
torch.optim.SGD([parameter], lr=0.1)
second = set(sys.modules) - before
assert not second, second
print("optimizer 2: imports", len(second), "modules")
PYTHON
echo "as described"
