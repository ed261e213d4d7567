"""Devices that are not here: the chips of a TPU slice as its compiler knows them, and emulated CPUs."""

import os
import re
import sys
from typing import NamedTuple

import jax
import numpy as np

from langfuse_jax.errors import UserError, reason

_GIB, _GB = 2**30, 1e9


class Chip(NamedTuple):
    """What a plan is held against: the makers' numbers of one device.

    Attributes:
        kind: as in `training.speed.PEAK_TFLOPS`.
        hbm_bytes: memory.
        hbm_bandwidth: bytes a second between memory and chip.
        link_bandwidth: bytes a second between a chip and its neighbours, all links and one direction together.
    """

    kind: str
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float


# Google Cloud's pages on each TPU version.
_TPUS = {
    "v4": Chip("TPU v4", 32 * _GIB, 1228 * _GB, 300 * _GB),
    "v5e": Chip("TPU v5e", 16 * _GIB, 819 * _GB, 200 * _GB),
    "v5p": Chip("TPU v5p", 95 * _GIB, 2765 * _GB, 600 * _GB),
    "v6e": Chip("TPU v6e", 32 * _GIB, 1640 * _GB, 448 * _GB),
}
_NAME = re.compile(r"([a-z0-9]+):(\d+(?:x\d+){0,2})")
_EXAMPLES = "v5e:4x8, v5p:4x4x4, v6e:4x4, v4:4x4x4 or cpu:8"


class Topology(NamedTuple):
    """Devices to compile for, and what is known of each; None for CPUs."""

    platform: str
    devices: list[jax.Device]
    chip: Chip | None


def find_topology(name: str) -> Topology:
    """The devices that `name` describes: a TPU version and the shape of a slice, or "cpu:" and a number.

    Emulated CPUs need the number before JAX starts: `prepare` says so. Raises UserError for other names, for shapes
    that the version does not have, and where libtpu is missing.

    >>> len(find_topology("cpu:1").devices)
    1
    """
    found = _NAME.fullmatch(name)
    if found is None or (found[1] != "cpu" and found[1] not in _TPUS):
        raise UserError(f"--topology {name}: is unknown; give one such as {_EXAMPLES}")
    if found[1] == "cpu":
        count = int(np.prod([int(side) for side in found[2].split("x")]))
        devices = jax.devices("cpu")
        if count > len(devices):
            raise UserError(f"--topology {name}: JAX has {len(devices)} CPU devices; set them before it starts")
        return Topology("cpu", devices[:count], None)
    try:
        from jax.experimental import topologies

        # Both cores of a v4 are one device, as they are on its machines; later versions know no other way.
        chips = {"chip_config_name": "megacore"} if found[1] == "v4" else {}
        description = topologies.get_topology_desc(name, platform="tpu", **chips)
    except Exception as error:  # JAX raises RuntimeError, ValueError and its own kinds
        if "libtpu" in str(error) and not _has_libtpu():
            raise UserError('--topology: TPUs require their compiler; pip install "langfuse-jax[plan]"') from error
        raise UserError(
            f"--topology {name}: cannot be described ({reason(error)}); give one such as {_EXAMPLES}"
        ) from error
    return Topology("tpu", list(description.devices), _TPUS[found[1]])


def prepare(name: str) -> None:
    """Sets what JAX must find in the environment to compile for `name`; before its first use in this process."""
    found = _NAME.fullmatch(name)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the compiler of TPUs is asked for by name
    if found and found[1] == "cpu":
        count = int(np.prod([int(side) for side in found[2].split("x")]))
        flag = f"--xla_force_host_platform_device_count={count}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        return
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")


def _has_libtpu() -> bool:
    from importlib.util import find_spec

    return "libtpu" in sys.modules or find_spec("libtpu") is not None
