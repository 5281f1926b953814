"""Files of a model from a trained checkpoint: checkpoint with measured accuracy, export, model card.

    python -m edgekit.export.publish runs/default/best.safetensors --name default --fer2013 fer2013.tar.gz \
        --ferplus ferplus_votes.csv --photos photos.tar --docs docs
    python -m edgekit.export.publish --name fer2013 --fer2013 fer2013.tar.gz  # the card only

Writes NAME.safetensors, NAME.onnx and NAME.md into the package's assets; without a checkpoint, only the card of the
files that are there. Every figure is measured on the given data; a card states what was not measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.export.publish.measure import Sources
from edgekit.export.publish.run import publish, write_card
from edgekit.model_store import ASSETS, SHIPPED


def _main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m edgekit.export.publish", description=__doc__, formatter_class=form)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="trained checkpoint; default: write the card only")
    parser.add_argument("--name", default="default", choices=SHIPPED)
    parser.add_argument("--folder", type=Path, default=ASSETS, help="folder of the three files")
    parser.add_argument("--fer2013", type=Path, help="FER-2013, measured on PrivateTest")
    parser.add_argument("--ferplus", type=Path, help="CSV of FER+ votes; needs --fer2013")
    parser.add_argument("--photos", type=Path, help="whole photographs")
    parser.add_argument("--detector", default="yunet", help="detector for the photographs, or YuNet's .onnx file")
    parser.add_argument("--uncertain-below", type=float, help="threshold of 'uncertain'; default: the checkpoint's")
    parser.add_argument("--docs", type=Path, help="folder of the docs, for document, picture and tables of the model")
    given = parser.parse_args()
    if given.ferplus and not given.fer2013:
        parser.error("--ferplus needs --fer2013: the votes belong to its images")
    sources = Sources(given.fer2013, given.ferplus, given.photos, given.detector)
    common = (given.folder, given.name, sources, given.docs, print)
    try:
        done = publish(given.checkpoint, *common, given.uncertain_below) if given.checkpoint else write_card(*common)
    except EdgekitError as error:
        print(f"edgekit: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{done.card}\n{done.onnx}")
    for protocol, result in (done.document["fer2013"] or {}).items():
        print(f"FER-2013 {protocol}: {result['accuracy']:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
