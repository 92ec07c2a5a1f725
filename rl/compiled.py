"""torch.compile with a fallback to the plain function."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch


class Compiled:
    """A function that is compiled at its first call, or called as it is if that fails.

    A warning says so. On a CPU torch needs a C++ compiler.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._call = torch.compile(function)

    def __call__(self, *values: Any) -> Any:
        """The function's value, up to rounding."""
        try:
            return self._call(*values)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            message = "updates are not compiled, and take longer: %s"
            logging.getLogger(__name__).warning(message, reason)
            self._call = self.function
            return self.function(*values)
