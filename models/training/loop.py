"""The training loop, for every kind of net, on a CPU, a GPU or several machines through Lightning Fabric.

    for each epoch:
        for each batch of the epoch's order:
            loss → gradients → optimiser step → moving average of the weights
        validate the averaged weights; save the state, and the weights if they are the best so far

All random numbers of an epoch come from generators seeded with (seed, epoch). A training that is resumed at the start
of an epoch therefore continues bit for bit as if it had not been interrupted (same machine, same number of threads).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import check_writable, exclusive_folder, remove_leftovers, write_atomic
from edgekit.model_store import BEST_NAME
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.models.evaluation.plots import save_learning_curves
from edgekit.models.model_loading import load_weights
from edgekit.models.training.machine import gather_batchnorms, launch, summed
from edgekit.models.training.recipes import Keep, freeze, make_optimizer
from edgekit.models.training.record import BestEpoch, TrainingState, load_state, save_state
from edgekit.models.training.task import TrainingJob

STATE_NAME = "last.pt"
CURVES_NAME = "curves.png"
METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class StepReport:
    """Progress within epoch `epoch` (from 0) of `epochs`, after `step` of `steps` steps.

    `loss`, `accuracy` (0..1) and `images_per_second` are means over the epoch so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float = 0.0


@dataclass(frozen=True)
class EpochReport(BestEpoch):
    """A finished epoch (from 1); accuracies 0..1, losses in nats, validation on the centre crop."""

    seconds: float
    images_per_second: float

    @property
    def rank(self) -> tuple[float, float]:
        """Greater for a better epoch: the validation accuracy, and for equal ones the lower validation loss."""
        return self.validation_accuracy, -self.validation_loss


StepCallback = Callable[[StepReport], None]
EpochCallback = Callable[[EpochReport], None]


def train_job(
    job: TrainingJob,
    output: Path,
    resume: bool = False,
    on_step: StepCallback | None = None,
    on_epoch: EpochCallback | None = None,
) -> list[EpochReport]:
    """Train, and write `best.safetensors`, `last.pt`, `metrics.jsonl` and `curves.png` to `output`.

    `best.safetensors` has the weights of the epoch with the highest validation accuracy (of equal ones, the one with
    the lowest validation loss), or of the last epoch if the recipe keeps that. Under torchrun every process computes
    its share of each batch, and BatchNorm spans all processes.

    Args:
        job: What to train.
        output: Folder; created if it is missing.
        resume: Continue from `last.pt` if it exists.
        on_step: Called after every step, in the first process.
        on_epoch: Called after every epoch, in the first process.

    Returns:
        The reports of all epochs, including those before a resume.

    Raises:
        InputError: `output` contains another training, another process writes to it, the loss diverges, or the
            settings do not fit the machine.
        StorageError: The disk is full or read-only.
    """
    check_output(output, resume)
    fabric = launch(job.accelerator, job.record.precision)
    is_first = fabric.is_global_zero
    # The first process locks the folder for all.
    with exclusive_folder(output) if is_first else nullcontext():
        check_output(output, resume)  # again, because another training may have finished since
        for name in (STATE_NAME, BEST_NAME):
            remove_leftovers(output / name)
        torch.manual_seed(job.record.seed)  # for the initial weights
        trainer = _Trainer(job, fabric)
        if resume and (output / STATE_NAME).exists():
            trainer.restore(load_state(output / STATE_NAME, job.record.fingerprint()))
            if is_first:  # the interruption may have come after the state was written and before these files were
                trainer.save_if_best(output / BEST_NAME)
                save_metrics(output, trainer.history)
        try:
            _run_epochs(trainer, output, on_step, on_epoch)
        except KeyboardInterrupt:  # the user stops the training and wants to see the curves
            _save_curves(trainer, output)
            raise
        _save_curves(trainer, output)
        return trainer.history


def saved_report(history: Sequence[EpochReport], keep: Keep) -> EpochReport:
    """Return the report of the epoch whose weights are saved: the best of a training, or its last."""
    return history[-1] if keep == "last" else max(history, key=lambda report: report.rank)


def check_output(output: Path, resume: bool) -> None:
    """Check that a training may write to a folder; call it before long work.

    Raises:
        InputError: `output` is a file, or contains another training.
        StorageError: `output` cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"output '{output}' is a file: name a folder")
    check_writable(output / STATE_NAME)
    has_state = (output / STATE_NAME).exists()
    if has_state and not resume:
        raise InputError(f"'{output}' already contains a training: resume it (--resume), or choose another folder")
    if not has_state and (output / BEST_NAME).exists():
        raise InputError(f"'{output}' contains {BEST_NAME} without {STATE_NAME} to resume from: choose another folder")


def _run_epochs(trainer: _Trainer, output: Path, on_step: StepCallback | None, on_epoch: EpochCallback | None) -> None:
    """Train the remaining epochs; the first process writes the files after each of them."""
    is_first = trainer.fabric.is_global_zero
    for epoch in range(len(trainer.history), trainer.job.recipe.epochs):
        if trainer.has_converged:
            break
        report = trainer.run_epoch(epoch, on_step if is_first else None)
        if is_first:
            # State before weights: after an interruption between them, resuming writes the weights.
            save_state(output / STATE_NAME, trainer.state())
            trainer.save_if_best(output / BEST_NAME)
            save_metrics(output, trainer.history)
            if on_epoch:
                on_epoch(report)
        trainer.fabric.barrier()  # the other processes wait until the files are written


def _save_curves(trainer: _Trainer, output: Path) -> None:
    """Write the learning curves of the epochs so far, in the first process."""
    if trainer.fabric.is_global_zero and trainer.history:
        saved = saved_report(trainer.history, trainer.job.recipe.keep)
        save_learning_curves(output / CURVES_NAME, trainer.history, saved)


class _Trainer:
    """Net, optimiser, averaged weights and history of one training.

    - `plain` is the trained net. `net` wraps it for several processes and for bf16. `learned` is its trained part.
    - `average` is a net with averaged weights: `learned_average` in place of `learned`. It shares all other tensors
      with `plain`. Without averaging it is `plain` itself.
    - `interpolated` is a net for the interpolation of `initial_state` and `average`, with tensors of its own. It is
      None if the recipe keeps no share of the initial weights.
    """

    def __init__(self, job: TrainingJob, fabric: Fabric) -> None:
        self.job = job
        self.fabric = fabric
        self.history: list[EpochReport] = []
        self.steps_taken = 0
        net = job.task.build(fabric.device).to(fabric.device)
        self.initial_state = copy.deepcopy(net.state_dict()) if job.recipe.initial_share else {}
        self.interpolated = copy.deepcopy(net) if job.recipe.initial_share else None
        self.average = _copy(net, job.task.learned(net)) if job.recipe.ema_decay else net
        if fabric.world_size > 1:
            gather_batchnorms(net, fabric)  # after the copies, which one process evaluates alone
            net.to(fabric.device)  # the new BatchNorms
        self.plain = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learned, self.learned_average = job.task.learned(self.plain), job.task.learned(self.average)
        freeze(self.learned, job.recipe.depth_decay, job.recipe.keeps_statistics)
        self.net, self.optimizer = fabric.setup(self.plain, make_optimizer(job.recipe, self.learned))

    def run_epoch(self, epoch: int, on_step: StepCallback | None) -> EpochReport:
        """Train for one epoch, counted from 0, validate, and add the report to the history."""
        recipe, task, started = self.job.recipe, self.job.task, time.monotonic()
        seed = self.job.record.seed * 1_000_003 + epoch  # another one for each epoch of each training
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout draws from the global generator
        batches = self._batches(task.order(generator))
        task.start_epoch(self.plain, epoch)
        self.net.train()
        # Again for each epoch, because `train` also switches the frozen BatchNorms to the statistics of the batch.
        freeze(self.learned, recipe.depth_decay, recipe.keeps_statistics)
        totals = torch.zeros(3, device=self.fabric.device)  # sum of losses, correct predictions, examples
        learning_rate = recipe.max_lr
        for step, batch in enumerate(batches):
            learning_rate = recipe.learning_rate(epoch, step, len(batches))
            totals += self._step(batch, task.draw(len(batch), generator), learning_rate)
            if on_step:
                loss_sum, correct, seen = totals.tolist()  # of this process
                speed = seen * self.fabric.world_size / (time.monotonic() - started)  # images per second of all
                on_step(
                    StepReport(epoch, recipe.epochs, step + 1, len(batches), loss_sum / seen, correct / seen, speed)
                )
        loss_sum, correct, seen = summed(self.fabric, totals)  # of all processes
        if not math.isfinite(loss_sum):
            raise InputError(f"the loss is NaN or infinity in epoch {epoch + 1}: lower the learning rate")
        trained_s = time.monotonic() - started
        validation = self._validated(epoch)
        report = EpochReport(
            epoch=epoch + 1,
            learning_rate=learning_rate,
            loss=loss_sum / seen,
            accuracy=correct / seen,
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            seconds=time.monotonic() - started,
            images_per_second=seen / trained_s,
        )
        self.history.append(report)
        return report

    def _validated(self, epoch: int) -> Evaluation:
        """Return the predictions for the validation images after an epoch, counted from 0."""
        try:
            return self.job.task.validate(self.result())
        except InputError as error:  # NaN or infinity
            raise InputError(f"validation of epoch {epoch + 1} failed ({error}): lower the learning rate") from error

    @property
    def _share(self) -> slice:
        """This process's share of a batch."""
        return slice(self.fabric.global_rank, None, self.fabric.world_size)

    def _batches(self, order: Tensor) -> list[Tensor]:
        """Return the epoch's batches of indices, each for all processes together.

        The images that are left over if a batch is divided equally among the processes are not used.

        Raises:
            InputError: The batch size, or the number of images, is too small for the number of processes.
        """
        world = self.fabric.world_size  # number of processes
        size = self.job.recipe.batch_size
        batches = [batch[: len(batch) // world * world] for batch in torch.split(order, size)]
        # BatchNorm needs at least two images per process for a variance.
        batches = [batch for batch in batches if len(batch) >= 2 * world]
        if not batches:
            raise InputError(
                f"too few images for {world} process{'es' * (world > 1)}: each needs two per step, so batch size "
                f"({size}) and number of training images ({len(order)}) must be {2 * world} or more"
            )
        return batches

    def _step(self, batch: Tensor, numbers: Tensor, learning_rate: float) -> Tensor:
        """Take one optimiser step on this process's share of a batch.

        Args:
            batch: Indices of the examples of all processes, (N,).
            numbers: Random numbers from `Task.draw`, a row for each example.
            learning_rate: That of the step; a layer's factor `rate` is applied to it.

        Returns:
            Sum of the losses, number of correct predictions, and number of examples of this share: (3,).
        """
        device = self.fabric.device
        indices, numbers = batch[self._share].to(device), numbers[self._share].to(device)  # (n,), (n, ...)
        loss, correct = self.job.task.loss(self.net, indices, numbers)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.job.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.learned.parameters(), self.job.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("rate", 1.0)
        self.optimizer.step()
        self.steps_taken += 1
        if self.average is not self.plain:  # the recipe averages the weights
            self._update_average()
        loss_sum = loss.detach() * len(indices)  # `loss` is the mean
        return torch.stack([loss_sum, correct, torch.tensor(len(indices), device=device)])

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights towards the current ones."""
        # The decay is smaller in the first steps, so that the initial weights do not stay in the average for long.
        decay = min(self.job.recipe.ema_decay, self.steps_taken / (self.steps_taken + 10))
        average, current = self.learned_average.state_dict(), self.learned.state_dict()
        for mean, value in zip(average.values(), current.values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:  # BatchNorm's counters of batches
                mean.copy_(value)

    @property
    def has_converged(self) -> bool:
        """Whether the recipe's patience is exhausted."""
        patience = self.job.recipe.patience
        if not self.history or patience == 0:
            return False
        ranks = [report.rank for report in self.history]
        epochs_since_best = len(ranks) - 1 - ranks.index(max(ranks))  # since the first of equally good epochs
        return epochs_since_best >= patience

    @torch.no_grad()
    def result(self) -> nn.Module:
        """Return the net that is evaluated and saved, in eval mode: the averaged one, or one with interpolated weights.

        The interpolated weights are share * initial + (1 - share) * averaged, with the recipe's `initial_share`.
        """
        if self.interpolated is None:
            return self.average.eval()
        share, averaged = self.job.recipe.initial_share, self.average.state_dict()
        # The tensors of a state dict share their memory with the net.
        for name, value in self.interpolated.state_dict().items():
            value.copy_(averaged[name])
            if value.is_floating_point():  # not BatchNorm's counters of batches
                value.lerp_(self.initial_state[name], share)
        return self.interpolated.eval()

    def save_if_best(self, path: Path) -> None:
        """Save the averaged weights if the last epoch is the best so far, or if the recipe keeps the last epoch."""
        *earlier, last = self.history
        # `rank` compares the accuracies, then the losses. Of equal epochs, the first one is kept.
        is_best = all(last.rank > report.rank for report in earlier)
        if self.job.recipe.keep == "last" or is_best:
            # Without the fields of times: equal trainings have equal files.
            best = BestEpoch(**{each.name: getattr(last, each.name) for each in fields(BestEpoch)})
            self.job.task.save(path, self.result(), replace(self.job.record, best=best).document())

    def state(self) -> TrainingState:
        """Return the state from which a training resumes at the next epoch, of the trained part of the net only."""
        return TrainingState(
            fingerprint=self.job.record.fingerprint(),
            net=self.learned.state_dict(),
            average=self.learned_average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            steps_taken=self.steps_taken,
            history=[asdict(report) for report in self.history],
        )

    def restore(self, state: TrainingState) -> None:
        """Continue from a state of an interrupted training."""
        try:
            load_weights(self.learned, state.net, "the net being trained")
            load_weights(self.learned_average, state.average, "the net being trained")
            self.optimizer.load_state_dict(state.optimizer)
            self.history = [EpochReport(**report) for report in state.history]
        except (TypeError, KeyError, ValueError, AttributeError, RuntimeError, InputError) as error:
            raise InputError(f"training state is damaged ({error}): start again with another -o") from error
        self.steps_taken = state.steps_taken


def _copy(net: nn.Module, learned: nn.Module) -> nn.Module:
    """Return a copy of `net` with its own copy of `learned`, a part of it; all other tensors are shared."""
    copied = {id(tensor) for tensor in (*learned.parameters(), *learned.buffers())}
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers()) if id(tensor) not in copied}
    return copy.deepcopy(net, shared)  # deepcopy takes what is in its memo instead of a copy


def save_metrics(folder: Path, history: Sequence[EpochReport]) -> None:
    """Write `metrics.jsonl`, atomically.

    Raises:
        StorageError: The file cannot be written.
    """
    write_atomic(folder / METRICS_NAME, "".join(f"{json.dumps(asdict(report))}\n" for report in history))
