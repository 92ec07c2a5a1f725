"""What holds for all tests."""

import torch

torch.set_num_threads(1)  # as in every stage: sums are split by threads, and tests compare bytes
