"""A training script with Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

EPOCHS = 3


def train(folder: Path, resume: Path | None) -> tuple[list[float], list[Path]]:
    """Train, perhaps from a checkpoint on; return the losses, and a checkpoint of every epoch."""
    set_seed(1)
    config = GPT2Config(vocab_size=20, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    text = torch.arange(12).repeat(64, 1) * torch.randint(1, 4, (64, 1)) % 20
    data: Any = [{"input_ids": line, "labels": line} for line in text]
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=8,
        lr_scheduler_type="cosine",
        warmup_steps=4,
        weight_decay=0.1,
        max_grad_norm=0.7,
        save_strategy="epoch",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=data,
        optimizer_cls_and_kwargs=(AdamW, {"lr": 0.01, "betas": (0.9, 0.99)}),
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, [folder / f"checkpoint-{8 * epoch}" for epoch in range(1, EPOCHS + 1)]
