"""Write the kept pipeline anew: python -m pipelines.hpo_loop"""

from pathlib import Path

from kfp import compiler

from pipelines.hpo_loop.pipeline import build

compiler.Compiler().compile(build(rounds=10, trials_per_round=5), str(Path(__file__).with_name("hpo_loop.yaml")))
