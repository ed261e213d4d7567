"""`langfuse-jax embed`: sentences encoded into a text file for fusing and training."""

import argparse

from langfuse_jax.errors import print_warning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.add_argument("--clip", metavar="C", default=None, help="CLIP folder or hub id (default: the compact CLIP)")
    for role in ("visible", "infrared", "goal"):
        parser.add_argument(f"--{role}", metavar="TEXT", action="append", help=f"{role} sentence; may be repeated")
    parser.add_argument("--out", metavar="FILE.npz", required=True, help="where to write the embeddings")


def run(args: argparse.Namespace) -> int:
    """Writes the text file and prints what the sentences are to this CLIP."""
    import numpy as np

    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import ROLES, embed

    clip = Clip.load(args.clip)
    sentences = {role: given for role in ROLES if (given := getattr(args, role))}
    text = embed(clip, **sentences, report=print_warning)
    text.save(args.out)
    print(f"{args.out}: CLIP {text.model} ({text.fingerprint})")
    for role in ROLES:
        print(f"  {role:<9}{' | '.join(text.prompts[role])}")
    for (first, second), cosine in text.cosines().items():
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        print(f"  {first}, {second}: cosine {cosine:.3f}, {degrees:.0f} degrees")
    return 0
