"""The training loop: one loop for every net, on a CPU, a GPU or several machines through Lightning Fabric.

Every random number of an epoch comes from generators seeded with (seed, epoch), so an interrupted training that
resumes at an epoch's start goes on bit for bit as if it had never stopped (same machine, same number of threads).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import exclusive_folder
from edgekit.models.checkpoints.checkpoint import load_weights
from edgekit.models.evaluation.plots import save_learning_curves
from edgekit.models.training.distributed import launch, summed
from edgekit.models.training.metrics import MetricsLog
from edgekit.models.training.optimizers import make_optimizer
from edgekit.models.training.state import TrainingState, load_state, save_state
from edgekit.models.training.sync_norm import gather_batchnorms
from edgekit.models.training.task import TrainingJob

BEST_NAME = "best.safetensors"
STATE_NAME = "last.pt"
CURVES_NAME = "curves.png"


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

    The best epoch is the one with the highest accuracy on the validation split, or simply the last where the recipe
    says so. Under torchrun every process takes its share of each batch, and BatchNorm spans all of them.

    Args:
        job: What to train.
        output: Folder; created.
        resume: Go on where `last.pt` ends; without one, start anew.
        on_step: Called after every step, in the first process.
        on_epoch: Called after every epoch, in the first process.

    Returns:
        The reports of all epochs, those before a resume included.

    Raises:
        InputError: `output` holds another training or one is writing to it, or the settings do not fit the machine.
        StorageError: The disk is full or read-only.
    """
    check_output(output, resume)
    fabric = launch(job.accelerator, job.precision)
    with exclusive_folder(output) if fabric.is_global_zero else nullcontext():
        check_output(output, resume)  # another training may have begun and ended meanwhile
        return _train(job, fabric, output, resume, on_step, on_epoch)


def _train(
    job: TrainingJob,
    fabric: Fabric,
    output: Path,
    resume: bool,
    on_step: Callable[[StepReport], None] | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> list[EpochReport]:
    state_path = output / STATE_NAME
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


def check_output(output: Path, resume: bool) -> None:
    """Check that a training may write to a folder, before anything that takes long.

    Raises:
        InputError: It is a file, or holds another training.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"output '{output}' is a file: name a folder")
    has_state = (output / STATE_NAME).exists()
    if has_state and not resume:
        raise InputError(f"'{output}' already holds a training: pass --resume to go on with it or another -o")
    if not has_state and (output / BEST_NAME).exists():
        raise InputError(f"'{output}' holds a {BEST_NAME} without {STATE_NAME} to go on from: give another -o")


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
        net = job.task.build(fabric.device)
        # The average is what is evaluated and saved; without averaging it is the net itself.
        self.average = _copy(net, job.task.learned(net)).to(fabric.device) if job.recipe.ema_decay else net
        if fabric.world_size > 1:
            gather_batchnorms(net, fabric)
        self.plain = net.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learned, self.learned_average = job.task.learned(self.plain), job.task.learned(self.average)
        self.net, self.optimizer = fabric.setup(self.plain, make_optimizer(job.recipe, self.learned))
        self.steps_taken = 0

    def run_epoch(self, epoch: int, on_step: Callable[[StepReport], None] | None) -> EpochReport:
        recipe, task, started = self.job.recipe, self.job.task, time.monotonic()
        seed = self.job.seed * 1_000_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout draws from the global one
        batches = self._batches(task.order(generator))
        task.start_epoch(self.plain, epoch)
        self.net.train()
        totals = torch.zeros(3, device=self.fabric.device)  # loss * examples, correct, examples
        lr = recipe.max_lr
        for step, batch in enumerate(batches):
            lr = recipe.learning_rate(epoch, step, len(batches))
            totals += self._step(batch, task.draw(len(batch), generator), lr)
            if on_step:
                loss_sum, correct, seen = totals.tolist()
                on_step(StepReport(epoch, step + 1, len(batches), loss_sum / seen, correct / seen))
        loss_sum, correct, seen = summed(self.fabric, totals)
        if not math.isfinite(loss_sum):
            raise InputError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rate")
        trained_s = time.monotonic() - started
        self.average.eval()
        validation = task.validate(self.average)
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

    def _batches(self, order: Tensor) -> list[Tensor]:
        """Return the epoch's global batches of indices; each a multiple of the number of processes."""
        world = self.fabric.world_size
        batches = [batch[: len(batch) // world * world] for batch in torch.split(order, self.job.recipe.batch_size)]
        # A BatchNorm of one image per process has no spread to learn from.
        return [batch for batch in batches if len(batch) >= 2 * world]

    def _step(self, batch: Tensor, numbers: Tensor, lr: float) -> Tensor:
        recipe, fabric = self.job.recipe, self.fabric
        mine = slice(fabric.global_rank, None, fabric.world_size)
        indices = batch[mine].to(fabric.device)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss, correct = self.job.task.loss(self.net, indices, numbers[mine].to(fabric.device))
        self.optimizer.zero_grad()
        fabric.backward(loss)
        if recipe.grad_clamp:
            nn.utils.clip_grad_value_(self.learned.parameters(), recipe.grad_clamp)
        self.optimizer.step()
        self._update_average()
        count = len(indices)
        return torch.stack([loss.detach() * count, correct, torch.tensor(count, device=fabric.device)])

    @torch.no_grad()
    def _update_average(self) -> None:
        self.steps_taken += 1
        if self.average is self.plain:
            return
        # A young average follows the net closely, or it would remember its initial values for long.
        decay = min(self.job.recipe.ema_decay, self.steps_taken / (self.steps_taken + 10))
        for mean, value in zip(
            self.learned_average.state_dict().values(), self.learned.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def save_if_best(self, path: Path) -> None:
        """Save the averaged weights of the last epoch if they are the best so far, or if the recipe keeps the last."""
        *before, last = (report.validation_accuracy for report in self.history)
        if self.job.recipe.keep == "last" or all(last > accuracy for accuracy in before):
            training = {**self.job.provenance, **self.job.fingerprint(), "best": asdict(self.history[-1])}
            self.job.task.save(path, self.average, training)

    def state(self) -> TrainingState:
        return TrainingState(
            fingerprint=self.job.fingerprint(),
            net=self.learned.state_dict(),
            average=self.learned_average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            steps_taken=self.steps_taken,
            history=[asdict(report) for report in self.history],
        )

    def restore(self, state: TrainingState) -> None:
        try:
            load_weights(self.learned, state.net, "the one being trained")
            load_weights(self.learned_average, state.average, "the one being trained")
            self.optimizer.load_state_dict(state.optimizer)
            self.history = [EpochReport(**report) for report in state.history]
        except (TypeError, KeyError, ValueError, AttributeError, RuntimeError, InputError) as error:
            raise InputError(f"training state is damaged ({error}): start anew with another -o") from error
        self.steps_taken = state.steps_taken


def _copy(net: nn.Module, learned: nn.Module) -> nn.Module:
    """Return a copy of `net` that has `learned` to itself and shares everything else."""
    own = {id(tensor) for tensor in (*learned.parameters(), *learned.buffers())}
    rest = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers()) if id(tensor) not in own}
    return copy.deepcopy(net, rest)
