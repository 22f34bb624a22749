"""Write the kept pipeline anew: python -m pipelines.retune"""

from pathlib import Path

from kfp import compiler

from pipelines.retune.pipeline import build

compiler.Compiler().compile(build(rounds=6, trials_per_round=5), str(Path(__file__).with_name("retune.yaml")))
