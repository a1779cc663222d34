"""A training script with Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import AdamW

EPOCHS = 3


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 32),
            torch.nn.BatchNorm1d(32),
            torch.nn.Tanh(),
            torch.nn.Linear(32, 3),
        )
        self.losses: list[float] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        inputs, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layers(inputs), labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = AdamW(self.parameters(), lr=0.01, weight_decay=0.1)
        total = int(self.trainer.estimated_stepping_batches)
        # it moves betas, too
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def train(folder: Path, resume: Path | None) -> tuple[list[float], list[Path]]:
    """Train, perhaps from a checkpoint on; return the losses, and a checkpoint of every epoch."""
    lightning.seed_everything(1, verbose=False)
    inputs = torch.randn(128, 8)
    labels = (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1)
    data = torch.utils.data.TensorDataset(inputs, labels)
    model = Classifier()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=1,
        gradient_clip_val=0.5,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8), ckpt_path=resume)
    return model.losses, [folder / f"epoch={epoch}.ckpt" for epoch in range(EPOCHS)]
