from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

# Small networks run fastest on one thread, and the suite shares its cores with worker processes.
torch.set_num_threads(1)
settings.register_profile("rlhpo", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rlhpo")
