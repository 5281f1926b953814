"""`edgekit export`: write a checkpoint as one self-describing file for ONNX Runtime or ncnn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, reported
from edgekit.export.options import ExportOptions, QuantizationOptions

if TYPE_CHECKING:
    from edgekit.export.quantization import QuantizedExport


@edgekit_command(
    "export", short_help="Export a checkpoint to one file.", options=ExportOptions, quantization=QuantizationOptions
)
@click.argument("model")
def command(out: Output, options: ExportOptions, quantization: QuantizationOptions) -> None:
    """Export MODEL to one file that contains the net, the labels and the preprocessing.

    MODEL is a .safetensors checkpoint, the folder of a training, `default`, `fer2013` or `distilled`.

    The file accepts any batch size. --target chooses rewrites of the graph that change its outputs by rounding errors
    only. The file is written only if its logits on a test picture differ from those of the checkpoint
    by at most 1e-4 (1e-3 with ncnn), or 1e-5 times the largest logit if that is more. Equal checkpoints and equal
    options give files with equal bytes.

    --eval DATA verifies the file with at most 500 of your images. The images are read and classified in the same way as
    on a device. If pixels or labels differ from those of the training, the file is kept under another name (exit code
    3). A warning names each new label from a text (--class) that is predicted for almost all or almost no images.

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
    averaged. --no-ensemble leaves out the image tower without prompts.

    \b
    Examples:
      edgekit export runs/mine/best.safetensors -o mine.onnx
      edgekit export default -o default.onnx --json
      edgekit export default -o a53.onnx --target a53
      edgekit export default -o mine.ncnn --engine ncnn
      edgekit export default -o int8.onnx --target a53 --quantize int8
          --calibrate fer2013.tar.gz --eval fer2013.tar.gz
      edgekit export distilled --class happy --class "sad face" --class neutral -o s.onnx
      edgekit export runs/student/best.safetensors --classes labels.json --clip clip.pt -o s.onnx
      edgekit export default --merge positive=happy --merge negative=angry,disgust,fear,sad
          -o moods.onnx
      edgekit export runs/prompts/best.safetensors --clip ViT-B-16.pt -o clip.onnx
      edgekit export runs/prompts/best.safetensors --clip clip.pt --no-ensemble --eval faces
          -o clip.onnx
    """
    from edgekit.cli.export.export_output import export_document, show_export
    from edgekit.device.engines.engine import contract_in
    from edgekit.export.run import export, quantize, refuse_quantized
    from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model

    if quantization.method is not None and str(options.model).endswith(ONNX_SUFFIX):
        onnx_file = resolve_model(str(options.model), (ONNX_SUFFIX,))
        refuse_quantized(contract_in(onnx_file), onnx_file)
    options = replace(options, model=resolve_model(str(options.model), (CHECKPOINT_SUFFIX,)))
    quantized: QuantizedExport | None = None
    with reported(out) as callbacks:
        if quantization.method is not None:
            quantized = quantize(**vars(options) | vars(quantization) | callbacks)
            exported = quantized.source
        else:
            exported = export(**vars(options) | callbacks)
    assert exported is not None
    show_export(out, exported, quantized, options)
    out.result(export_document(exported, quantized, options))
