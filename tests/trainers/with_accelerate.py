"""A training script with accelerate."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim import AdamW

EPOCHS = 3


def train(folder: Path, resume: Path | None) -> tuple[list[float], list[Path]]:
    """Train, perhaps from a checkpoint on; return the losses, and a checkpoint of every epoch."""
    set_seed(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    inputs = torch.randn(128, 8)
    labels = (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1)
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, labels), batch_size=8, shuffle=True
    )
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 32), torch.nn.LayerNorm(32), torch.nn.Tanh(), torch.nn.Linear(32, 3)
    )
    optimizer = AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    model, optimizer, data, scheduler = accelerator.prepare(model, optimizer, data, scheduler)
    first = 0
    if resume is not None:
        accelerator.load_state(resume)
        first = int(resume.name) + 1
    losses = []
    paths = [folder / str(epoch) for epoch in range(EPOCHS)]
    for epoch in range(first, EPOCHS):
        for batch, expected in data:
            with accelerator.accumulate(model):
                loss = torch.nn.functional.cross_entropy(model(batch), expected)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        accelerator.save_state(paths[epoch])
    return losses, paths
