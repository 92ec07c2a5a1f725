"""torch.compile for a function that must run in any case."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch


class Compiled:
    """A function compiled at its first call, or left as it is where that fails, with a notice.

    On a CPU torch needs a C++ compiler for it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._call = torch.compile(function)

    def __call__(self, *values: Any) -> Any:
        """The function's value, but for rounding."""
        try:
            return self._call(*values)
        except torch._dynamo.exc.TorchDynamoException as error:
            why = str(error).strip().partition("\n")[0]
            message = "updates are not compiled, and take longer: %s"
            logging.getLogger(__name__).warning(message, why)
            self._call = self.function
            return self.function(*values)
