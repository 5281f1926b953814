"""The training loop: one loop for every net, on a CPU, a GPU or several machines through Lightning Fabric.

Every random number of an epoch comes from a generator seeded with (seed, epoch), so an interrupted training that
resumes at an epoch's start goes on bit for bit as if it had never stopped (same machine, same number of threads).
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.models.checkpoint import Checkpoint, load_weights, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import augment, draw
from edgekit.models.data.balance import balanced_order, class_weights
from edgekit.models.evaluate import Evaluation, TorchClassifier, evaluate
from edgekit.models.grouped import set_training_progress
from edgekit.models.metrics import MetricsLog
from edgekit.models.plots import save_learning_curves
from edgekit.models.recipes import Recipe
from edgekit.models.registry import create_model
from edgekit.models.state import TrainingState, load_state, save_state
from edgekit.models.sync_norm import gather_batchnorms

Precision = Literal["fp32", "bf16", "fp16"]
Balance = Literal["none", "loss", "sampler"]
_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}

BEST_NAME = "best.safetensors"
STATE_NAME = "last.pt"
CURVES_NAME = "curves.png"


@dataclass(frozen=True)
class TrainingJob:
    """Everything a training needs; equal jobs on equal machines give equal weights.

    `contract` describes the net to be (architecture, labels, preprocessing, data set); `provenance` lands in the
    checkpoint (checksum of the data, versions). `balance` makes rare classes count as much as common ones: "loss" by
    weight, "sampler" by drawing every class equally often.
    """

    contract: Contract
    recipe: Recipe
    training: ImageSet
    validation: ImageSet
    provenance: Mapping[str, Any]
    seed: int = 0
    precision: Precision = "fp32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    balance: Balance = "none"

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for a resumed training to be the same training."""
        return {
            "architecture": self.contract.architecture,
            "labels": list(self.contract.labels),
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "precision": self.precision,
            "balance": self.balance,
            "data_sha256": self.provenance.get("data_sha256"),
        }


@dataclass(frozen=True)
class StepReport:
    """Progress within an epoch; `loss` and `accuracy` (0..1) are running means over the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch; accuracies are 0..1, losses in nats, validation is on the centre crop."""

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    images_per_second: float


def train(
    job: TrainingJob,
    output: Path,
    resume: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> list[EpochReport]:
    """Train and write `best.safetensors`, `last.pt`, `metrics.jsonl`, TensorBoard events and `curves.png` to `output`.

    The best epoch is the one with the highest accuracy on the validation split. Under torchrun every process takes its
    share of each batch, and BatchNorm spans all of them.

    Args:
        job: What to train.
        output: Folder; created.
        resume: Go on where `last.pt` ends; without one, start anew.
        on_step: Called after every step, in the first process.
        on_epoch: Called after every epoch, in the first process.

    Returns:
        The reports of all epochs, those before a resume included.

    Raises:
        InputError: `output` holds another training, or the settings do not fit the machine.
        StorageError: The disk is full or read-only.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"output '{output}' is a file: name a folder")
    fabric = _launch(job)
    state_path = output / STATE_NAME
    if state_path.exists() and not resume:
        raise InputError(f"'{output}' already holds a training: pass --resume to go on with it or another -o")
    if not state_path.exists() and (output / BEST_NAME).exists():
        raise InputError(f"'{output}' holds a {BEST_NAME} without {STATE_NAME} to go on from: give another -o")
    torch.manual_seed(job.seed)
    trainer = _Trainer(job, fabric)
    if resume and state_path.exists():
        trainer.restore(load_state(state_path, job.fingerprint()))
        if fabric.is_global_zero:
            trainer.save_if_best(output / BEST_NAME)
    try:
        _run_epochs(trainer, output, on_step, on_epoch)
    except KeyboardInterrupt:
        _draw_curves(trainer, output)
        raise
    _draw_curves(trainer, output)
    return trainer.history


def _run_epochs(
    trainer: _Trainer,
    output: Path,
    on_step: Callable[[StepReport], None] | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    is_first = trainer.fabric.is_global_zero
    with MetricsLog(output, trainer.history, enabled=is_first) as log:
        for epoch in range(len(trainer.history), trainer.job.recipe.epochs):
            report = trainer.run_epoch(epoch, on_step if is_first else None)
            if is_first:
                # The state first: an interruption between the two is made good when resuming.
                save_state(output / STATE_NAME, trainer.state())
                trainer.save_if_best(output / BEST_NAME)
                log.write(report)
                if on_epoch:
                    on_epoch(report)
            trainer.fabric.barrier()


def _draw_curves(trainer: _Trainer, output: Path) -> None:
    if trainer.fabric.is_global_zero and trainer.history:
        save_learning_curves(output / CURVES_NAME, trainer.history)


class _Trainer:
    """The moving parts of one training: net, optimiser, moving average, history."""

    def __init__(self, job: TrainingJob, fabric: Fabric) -> None:
        self.job = job
        self.fabric = fabric
        self.history: list[EpochReport] = []
        self.images = torch.from_numpy(job.training.images.copy()).permute(0, 3, 1, 2).contiguous().to(fabric.device)
        self.labels = torch.from_numpy(job.training.labels.copy()).to(fabric.device)
        targets = job.training.targets
        self.targets = None if targets is None else torch.from_numpy(targets.copy()).to(fabric.device)
        self.class_weights = None
        if job.balance == "loss":
            self.class_weights = class_weights(self.labels, len(job.contract.labels))
        net = create_model(job.contract.architecture, len(job.contract.labels))
        # The average is what is evaluated and saved; without averaging it is the net itself.
        self.average = copy.deepcopy(net).to(fabric.device).eval()
        if fabric.world_size > 1:
            gather_batchnorms(net, fabric)
        self.plain = net.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            net.parameters(),
            lr=job.recipe.max_lr,
            momentum=job.recipe.momentum,
            weight_decay=job.recipe.weight_decay,
            nesterov=job.recipe.nesterov,
        )
        self.net, self.optimizer = fabric.setup(self.plain, optimizer)
        self.steps_taken = 0

    def run_epoch(self, epoch: int, on_step: Callable[[StepReport], None] | None) -> EpochReport:
        recipe, started = self.job.recipe, time.monotonic()
        generator = torch.Generator().manual_seed(self.job.seed * 1_000_003 + epoch)
        batches = self._batches(generator)
        set_training_progress(self.plain, epoch / recipe.epochs)
        self.net.train()
        totals = torch.zeros(3, device=self.fabric.device)  # loss * images, correct, images
        lr = recipe.max_lr
        for step, batch in enumerate(batches):
            lr = recipe.learning_rate(epoch, step, len(batches))
            totals += self._step(batch, draw(len(batch), generator), lr)
            if on_step:
                loss_sum, correct, seen = totals.tolist()
                on_step(StepReport(epoch, step + 1, len(batches), loss_sum / seen, correct / seen))
        loss_sum, correct, seen = _summed(self.fabric, totals)
        if not math.isfinite(loss_sum):
            raise InputError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rate")
        trained_s = time.monotonic() - started
        validation = self._validate()
        report = EpochReport(
            epoch=epoch + 1,
            learning_rate=lr,
            loss=loss_sum / seen,
            accuracy=correct / seen,
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            seconds=time.monotonic() - started,
            images_per_second=seen / trained_s,
        )
        self.history.append(report)
        return report

    def _batches(self, generator: torch.Generator) -> list[Tensor]:
        """Return the epoch's global batches of indices; each a multiple of the number of processes."""
        if self.job.balance == "sampler":
            order = balanced_order(self.labels.cpu(), generator)
        else:
            order = torch.randperm(len(self.labels), generator=generator)
        batches = list(torch.split(order, self.job.recipe.batch_size))
        world = self.fabric.world_size
        # A BatchNorm of one image per process has no spread to learn from.
        batches = [batch[: len(batch) // world * world] for batch in batches]
        return [batch for batch in batches if len(batch) >= 2 * world]

    def _step(self, batch: Tensor, numbers: Tensor, lr: float) -> Tensor:
        recipe, fabric = self.job.recipe, self.fabric
        mine = slice(fabric.global_rank, None, fabric.world_size)
        indices = batch[mine].to(fabric.device)
        images = augment(self.images[indices], numbers[mine].to(fabric.device), recipe.augmentation)
        images = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        labels = self.labels[indices]
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        logits = self.net(images)
        # Distributions already say how sure the labels are.
        truth, smoothing = (labels, recipe.label_smoothing) if self.targets is None else (self.targets[indices], 0.0)
        losses = F.cross_entropy(logits.float(), truth, self.class_weights, reduction="none", label_smoothing=smoothing)
        loss = losses.mean()
        self.optimizer.zero_grad()
        fabric.backward(loss)
        if recipe.grad_clamp:
            nn.utils.clip_grad_value_(self.plain.parameters(), recipe.grad_clamp)
        self.optimizer.step()
        self._update_average()
        count = len(labels)
        correct = (logits.argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach() * count, correct, torch.tensor(count, device=fabric.device)])

    @torch.no_grad()
    def _update_average(self) -> None:
        self.steps_taken += 1
        # A young average follows the net closely, or it would remember its initial values for long.
        decay = min(self.job.recipe.ema_decay, self.steps_taken / (self.steps_taken + 10))
        for mean, value in zip(self.average.state_dict().values(), self.plain.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _validate(self) -> Evaluation:
        classifier = TorchClassifier(self.average, self.job.contract, self.fabric.device)
        return evaluate(classifier, self.job.validation, "center-crop")

    def save_if_best(self, path: Path) -> None:
        """Save the averaged weights if the last epoch's validation accuracy is above all before it."""
        *before, last = (report.validation_accuracy for report in self.history)
        if all(last > accuracy for accuracy in before):
            training = {**self.job.provenance, **self.job.fingerprint(), "best": asdict(self.history[-1])}
            save_checkpoint(path, Checkpoint(self.job.contract, self.average.state_dict(), training))

    def state(self) -> TrainingState:
        return TrainingState(
            fingerprint=self.job.fingerprint(),
            net=self.plain.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            steps_taken=self.steps_taken,
            history=[asdict(report) for report in self.history],
        )

    def restore(self, state: TrainingState) -> None:
        try:
            load_weights(self.plain, state.net, self.job.contract.architecture)
            load_weights(self.average, state.average, self.job.contract.architecture)
            self.optimizer.load_state_dict(state.optimizer)
            self.history = [EpochReport(**report) for report in state.history]
        except (TypeError, KeyError, ValueError, AttributeError, RuntimeError, InputError) as error:
            raise InputError(f"training state is damaged ({error}): start anew with another -o") from error
        self.steps_taken = state.steps_taken


def _launch(job: TrainingJob) -> Fabric:
    """Return a launched Fabric; torchrun's environment says how many processes there are."""
    world, local = _count_in_environment("WORLD_SIZE"), _count_in_environment("LOCAL_WORLD_SIZE")
    if job.accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("no GPU is visible here: pass --accelerator cpu")
    if job.precision == "fp16" and (job.accelerator == "cpu" or not torch.cuda.is_available()):
        raise InputError("fp16 training needs a GPU: pass --precision bf16 or fp32")
    # Its announcements tell the user nothing they did not ask for.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=job.accelerator,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=_FABRIC_PRECISION[job.precision],
    )
    fabric.launch()
    return fabric


def _count_in_environment(name: str) -> int:
    text = os.environ.get(name, "1")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"environment variable {name} is {text!r}: torchrun sets it to a number of processes")
    return int(text)


def _summed(fabric: Fabric, totals: Tensor) -> list[float]:
    summed = fabric.all_reduce(totals, reduce_op="sum")
    assert isinstance(summed, Tensor)
    values: list[float] = summed.tolist()
    return values
