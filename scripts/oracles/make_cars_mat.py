#!/usr/bin/env python3
"""Writes a small cars_annos.mat of the published file's shape, with scipy."""
import pathlib

import numpy
from scipy.io import savemat

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent.parent / "crates/oboro-learn/tests/fixtures/cars_annos_small.mat"

FIELDS = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
CLASSES = [1, 2, 98, 99, 196, 1, 99, 0, 197]  # the last two are out of range

annotations = numpy.zeros((1, len(CLASSES)), dtype=[(name, object) for name in FIELDS])
for n, label in enumerate(CLASSES):
    annotations[0, n] = (f"car_ims/{n + 1:06}.jpg", 112, 7, 853, 717, label, n % 2)
names = numpy.array([[f"Make {n} Sedan 2012" for n in range(1, 197)]], dtype=object)
savemat(OUT, {"annotations": annotations, "class_names": names}, do_compression=True)
print(f"{OUT.name}: {OUT.stat().st_size} bytes")
