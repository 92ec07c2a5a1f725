"""What holds for all tests."""

import torch

torch.set_num_threads(1)  # sums are split by threads, and tests compare bytes and run side by side
