"""What a file that is not loaded raises."""

from __future__ import annotations

__all__ = ["CheckpointError"]


class CheckpointError(ValueError):
    """A file does not hold what was saved, or not what is to be loaded; nothing has changed.

    The message names the file, the entry and the reason.
    """
