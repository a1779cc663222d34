"""Files that hold everything that it takes to go on: durable, checked, and without pickle."""

from fastadam.checkpoint.kinds import checkpointed
from fastadam.checkpoint.loading import load
from fastadam.checkpoint.report import LoadReport
from fastadam.checkpoint.ruled import RuledCheckpoint
from fastadam.checkpoint.saving import save
from fastadam.files.errors import CheckpointError
from fastadam.update.gradient_method import GradientMethod

__all__ = ["CheckpointError", "LoadReport", "load", "save"]

checkpointed.register(GradientMethod, RuledCheckpoint)
