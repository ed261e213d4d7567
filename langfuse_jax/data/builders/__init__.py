"""tensorflow-datasets builders of infrared-visible pairs, which need no tensorflow; importing them registers them."""

from langfuse_jax.data.builders.folder import Folder
from langfuse_jax.data.builders.llvip import Llvip
from langfuse_jax.data.builders.m3fd import M3fd
from langfuse_jax.data.builders.msrs import Msrs
from langfuse_jax.data.builders.pairs import PairsBuilder
from langfuse_jax.data.builders.roadscene import RoadScene
from langfuse_jax.data.builders.tno import Tno

BUILDERS = {builder.name: builder for builder in (RoadScene, Msrs, Llvip, M3fd, Tno, Folder)}

__all__ = ["BUILDERS", "Folder", "Llvip", "M3fd", "Msrs", "PairsBuilder", "RoadScene", "Tno"]
