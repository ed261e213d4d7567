"""Arguments of wrong types in Python raise UserError: in a process of its own, where nothing else checks types."""

import json
import subprocess
import sys

PROGRAM = """
import json, tempfile
import numpy as np
from langfuse_jax import Alignment, Fuser, UserError, align, fuse_folders
from langfuse_jax.examples.night_scene import write_night_scenes
from langfuse_jax.metrics import evaluate

folder = tempfile.mkdtemp()
write_night_scenes(folder, 1, 32, 32)
gray = np.zeros((32, 32), np.uint8)
fuser = Fuser({"params": {}})
rig = Alignment(np.eye(3), (32, 32), (32, 32))
calls = {
    "a path": lambda: Fuser.load(3),
    "a tile": lambda: fuser(gray, gray, tile=32.0),
    "a tile of text": lambda: fuser(gray, gray, tile="32"),
    "a ragged list": lambda: fuser([[1, 2], [3]], gray),
    "text": lambda: fuser("a.png", gray),
    "booleans": lambda: fuser(gray > 0, gray),
    "objects": lambda: fuser(np.array([[None] * 32] * 32), gray),
    "lists to score": lambda: evaluate(gray.tolist(), gray, gray),
    "nothing to score": lambda: evaluate(gray, gray, None),
    "complex numbers to score": lambda: evaluate(gray + 0j, gray, gray),
    "a mask to score": lambda: evaluate(gray > 0, gray, gray),
    "bytes to align": lambda: rig.apply(gray, gray),
    "colour infrared to align": lambda: rig.apply(gray / 255, np.zeros((32, 32, 3))),
    "paths to align": lambda: align("a.png", "b.png"),
    "canvases": lambda: fuse_folders(f"{folder}/visible", f"{folder}/infrared", f"{folder}/o", canvases="4"),
    "a batch size": lambda: fuse_folders(f"{folder}/visible", f"{folder}/infrared", f"{folder}/o", batch_size=1.5),
}
raised = {}
for name, call in calls.items():
    try:
        raised[name] = repr(call())
    except Exception as error:
        raised[name] = "UserError" if isinstance(error, UserError) and "\\n" not in str(error) else repr(error)
print(json.dumps(raised))
"""


def test_wrong_types_are_users_errors():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    raised = json.loads(done.stdout.splitlines()[-1])
    assert raised and {name: what for name, what in raised.items() if what != "UserError"} == {}
