"""Classify photos with an exported classifier: it needs only onnxruntime, Pillow and numpy.

python onnx_only.py model.onnx photo.jpg ...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = model.get_modelmeta().custom_metadata_map
taxa, ood_threshold = json.loads(about["taxonomy"]), json.loads(about["known_from"])
for path in sys.argv[2:]:
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scores, ood_score = model.run(None, {"image": np.asarray(upright)})
    unknown = None if ood_threshold is None else bool(ood_score < ood_threshold)
    print(path + (", which may be another species" if unknown else ""))
    for number in np.argsort(-scores)[:5]:
        print(f"  {scores[number]:6.1%}  {taxa[number]['common_name'] or taxa[number]['name']}")
