"""A few runs of the soak, one for each kind of fault; `make soak` makes as many as there is time for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.soak import results
from tests.soak.effects import Armed, arm
from tests.soak.plan import DISK, SIGNALS, WEATHER, Fault, draw

ROOT = Path(__file__).parents[2]
#: Kills of a study on this machine, of a step, and of a promotion; S3 that is away; a full disk. Without MLflow's server.
SEEDS = ()
