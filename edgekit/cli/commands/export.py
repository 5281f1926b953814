"""`edgekit export`: write a checkpoint as one self-describing file for ONNX Runtime or ncnn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Command, section
from edgekit.cli.export.options import (
    check_combination,
    export_arguments,
    quantize_options,
    target_options,
)
from edgekit.cli.options import PATH, NumberRange, merge_option
from edgekit.cli.output import Output

if TYPE_CHECKING:
    from edgekit.export.quantization.gate import QuantizedExport


@click.command("export", cls=Command, short_help="Export a checkpoint to one file.")
@click.argument("model")
@section("File", click.option("-o", "--output", type=PATH, required=True, help="The .onnx or .ncnn file to write."))
@target_options
@section(
    "Labels",
    click.option(
        "--class",
        "class_names",
        multiple=True,
        metavar="NAME",
        help="New label for a student of a CLIP or for trained prompts. Repeatable.",
    ),
    click.option(
        "--classes",
        "classes_file",
        type=PATH,
        metavar="JSON",
        help='New labels with descriptions: {"NAME": ["A sentence.", …], …}.',
    ),
    click.option(
        "--clip",
        metavar="FILE|DIR|NAME",
        help="For --class and --classes: the teacher's CLIP. Default: the file NAME.text.safetensors beside MODEL. "
        "For trained prompts: their CLIP.",
    ),
    click.option("--prompts", type=PATH, metavar="FILE|DIR", help="Prompts of the teacher, if it has prompts."),
    merge_option,
    click.option(
        "--uncertain-below",
        type=NumberRange(0, 1),
        metavar="P",
        help="Smallest probability of a label. If the probability is smaller, the label is 'uncertain'. Default: "
        "the checkpoint's threshold.",
    ),
)
@quantize_options
def command(out: Output, model: str, output: Path, **options: Any) -> None:
    """Export MODEL to one file that contains the net, the labels and the preprocessing.

    MODEL is a .safetensors checkpoint, the folder of a training, `default`, `fer2013` or `distilled`.

    The file accepts any batch size. --target and --pass choose rewrites of the graph that change its outputs by
    rounding errors only. The file is written only if its logits on face crops differ from those of the checkpoint by at
    most 1e-4 (1e-3 with ncnn), or 1e-5 times the largest logit if that is more. Equal checkpoints and equal options
    give files with equal bytes.

    --eval DATA verifies the file with at most 500 of your images. The images are read and classified in the same way as
    on a device. If pixels or labels differ from those of the training, the file is kept under another name (exit code
    3).

    --quantize int8 --calibrate DATA converts weights and activations to 8 bits. With --eval DATA, the accuracy of the
    float32 file and of the int8 file is measured with the code of the device. If the accuracy drops by more than
    --max-drop, the int8 file is kept under another name (exit code 3).

    With --engine ncnn, pnnx converts the same ONNX model to a file for ncnn.

    --uncertain-below writes the threshold of the label 'uncertain' into the file. `edgekit eval` prints coverage and
    accuracy for several thresholds. Without --uncertain-below, the file has the threshold of the checkpoint. If the
    labels are new or merged, the file then has no threshold.

    --merge merges labels without training. The probability of the new label is the sum of the probabilities of the old
    labels. Labels that no --merge names are removed. A student of a CLIP, such as `distilled`, can get new labels from
    texts (--class). The text tower of the teacher encodes these texts during the export. The exported file does not
    need the text tower. Labels from texts can be merged, too.

    With --clip, MODEL can also be a file of trained prompts. The exported file then contains the image tower with
    prompts, the image tower without prompts, and the text features as a matrix. The outputs of the two image towers are
    averaged. --no-pass ensemble leaves out the image tower without prompts. The size and the cost of both forms are
    then printed, and with --eval also their accuracy.

    \b
    Examples:
      edgekit export runs/mine/best.safetensors -o mine.onnx
      edgekit export default -o default.onnx --json
      edgekit export default -o a53.onnx --target a53
      edgekit export default -o small.onnx --target x86 --no-pass uint8-input
      edgekit export default -o mine.ncnn --engine ncnn
      edgekit export default -o int8.onnx --target a53 --quantize int8
          --calibrate fer2013.tar.gz --eval fer2013.tar.gz
      edgekit export distilled --class happy --class "sad face" --class neutral -o s.onnx
      edgekit export runs/student/best.safetensors --classes labels.json --clip clip.pt -o s.onnx
      edgekit export default --merge positive=happy --merge negative=angry,disgust,fear,sad
          -o moods.onnx
      edgekit export runs/prompts/best.safetensors --clip ViT-B-16.pt -o clip.onnx
      edgekit export runs/prompts/best.safetensors --clip clip.pt --no-pass ensemble --eval faces
          -o clip.onnx
    """
    from edgekit.cli.export.export_output import export_document, show_export
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.device.engines.engine import contract_in
    from edgekit.export.quantization.run import quantize, refuse_quantized
    from edgekit.files import sha256_of
    from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
    from edgekit.models.clip.checkpoint import is_prompts_file
    from edgekit.models.clip.descriptions import read_descriptions

    if options["method"] and Path(model).suffix == ONNX_SUFFIX:
        refuse_quantized(contract_in(resolve_model(model, (ONNX_SUFFIX,))), Path(model))
    checkpoint = resolve_model(model, (CHECKPOINT_SUFFIX,))
    is_prompts = is_prompts_file(checkpoint)
    check_combination(click.get_current_context(), options, is_prompts)
    from edgekit.export.onnx.to_onnx import check_target
    from edgekit.export.run import export

    check_target(output, NCNN_SUFFIX if options["engine"] == "ncnn" else ONNX_SUFFIX)
    file = options["classes_file"]
    classes = read_descriptions(file) if file else options["class_names"]
    arguments = export_arguments(options, classes, is_prompts)
    quantized: QuantizedExport | None = None
    with progress_bar(out) as bars:
        arguments |= {"progress": by_stage(bars), "notify": out.say}
        if options["method"]:
            quantized = quantize(checkpoint, output, **arguments)
            exported = quantized.source
        else:
            exported = export(checkpoint, output, **arguments)
    assert exported is not None
    sha256 = sha256_of(output)
    show_export(out, exported, quantized, sha256, show_labels=is_prompts or bool(classes or options["merges"]))
    out.result(
        export_document(
            exported,
            quantized,
            checkpoint=str(checkpoint),
            engine=options["engine"],
            target=options["target"],
            sha256=sha256,
        )
    )
