"""Logits and accuracy of files on an emulated core, compared with those of the first file.

    python benchmarks/cores/agreement.py mine.onnx half.onnx half.ncnn --core a76 --data fer2013.tar.gz

Only few processors compute in half floats. The emulated core shows their effect, where a PC computes in float32. The
limits are those of `edgekit verify`. Exit code 3 if a file exceeds them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from cores import CORES, HERE, default_state, prepare, run_emulated

from edgekit.device.engines.engine import contract_in, engine_of
from edgekit.errors import EXIT_GATE
from edgekit.export.verification.comparison import accuracy_drop
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, aligned
from edgekit.preprocess import center_crop
from edgekit.tolerance import logit_faults, relative_difference, same_top1, tolerance_for


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--core", type=click.Choice(list(CORES)), default="a76", show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--split", default="PrivateTest", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=500, show_default=True, help="Images, evenly spread.")
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Default: $EDGEKIT_CORES or the cache.")
def main(models: tuple[Path, ...], core: str, data: Path, split: str, limit: int, state: Path | None) -> None:
    """Compare MODELS with the first of them."""
    state = (state or default_state()).resolve()
    prepare(state)
    contract = contract_in(models[0])
    dataset = load_dataset(data, contract.crop.resize_hw[0], fit=contract.crop.fit)
    images = aligned(dataset, dataset.split(split), contract)
    images = images.subset(np.unique(np.linspace(0, len(images) - 1, limit).astype(np.int64)))
    with tempfile.TemporaryDirectory() as folder:
        crops, logits = Path(folder) / "crops.npy", Path(folder) / "logits.npy"
        np.save(crops, center_crop(images.images, contract.input.size_hw))
        program = [HERE / "guest_logits.py", crops, logits, *(model.resolve() for model in models)]
        done = run_emulated(state, CORES[core], program, HERE.parents[1])
        if done.returncode:
            raise click.ClickException(f"a file does not run on the emulated {core}: {done.stderr.strip()[-300:]}")
        found = [Evaluation(contract.labels, images.labels, own) for own in np.load(logits)]
    refused = False
    for model, own in zip(models, found, strict=True):
        tolerance = tolerance_for(contract_in(model).precision, engine_of(model))
        faults = logit_faults(found[0].logits, own.logits, tolerance)
        if tolerance.drop is not None and (drop := accuracy_drop(found[0], own, tolerance.drop)):
            faults.append(drop)
        click.echo(
            f"{model.name}: accuracy {own.accuracy:.2%} ({own.correct} of {own.total}), logits differ by "
            f"{relative_difference(found[0].logits, own.logits):.4f} of their root mean square, top-1 equal on "
            f"{same_top1(found[0].logits, own.logits)}: {'; '.join(faults) or 'within the limits'}"
        )
        refused |= bool(faults)
    sys.exit(EXIT_GATE if refused else 0)


if __name__ == "__main__":
    main()
