"""How a step ends early."""

from __future__ import annotations

from imageprocessing_contract.reasons import Reason


class StepError(Exception):
    """The step cannot go on; `transient` says whether another Pod may get further."""

    def __init__(self, reason: Reason, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.reason, self.message, self.transient = reason, message, transient


class SourceError(StepError):
    """The source of the catalogue cannot be read."""
