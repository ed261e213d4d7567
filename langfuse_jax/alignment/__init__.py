"""Two cameras on one rig: the transform from infrared to visible pixels, found without a calibration target."""

MODELS = ("similarity", "affine", "homography")
