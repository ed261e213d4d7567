"""The command `langfuse-jax`: parse, call, print. Everything heavy is imported by the sub-command that needs it."""

import argparse
import os
import sys
import warnings
from functools import partial

from langfuse_jax._version import __version__
from langfuse_jax.errors import CutPrompt, Preempted, UserError


def _fuse(args, rest):
    from langfuse_jax.fuse_command import fuse_command

    return fuse_command(args)


def _embed(args, rest):
    from langfuse_jax.text import embed_command

    return embed_command(args)


def _train(args, rest):
    from langfuse_jax.training.loop import train_command

    return train_command(args, rest)


def _distill(args, rest):
    from langfuse_jax.training.distill import distill_command

    return distill_command(args, rest)


def _train_clip(args, rest):
    from langfuse_jax.training.clip import train_clip_command

    return train_clip_command(args, rest)


def _data_build(args, rest):
    from langfuse_jax.data.build import data_build_command

    return data_build_command(args)


def _convert_fusion(args, rest):
    from langfuse_jax.convert.fusion import convert_fusion_command

    return convert_fusion_command(args)


def _convert_vgg19(args, rest):
    from langfuse_jax.convert.vgg import convert_vgg19_command

    return convert_vgg19_command(args)


def _export(args, rest):
    from langfuse_jax.export import export_command

    return export_command(args)


def _demo(args, rest):
    from langfuse_jax.demo import demo_command

    return demo_command(args)


def _evaluate(args, rest):
    from langfuse_jax.evaluate_command import evaluate_command

    return evaluate_command(args)


def _parser():
    parser = argparse.ArgumentParser(
        prog="langfuse-jax",
        description="Fuse infrared and visible images with a network whose training objective is written in words.",
    )
    parser.add_argument("--version", action="version", version=f"langfuse-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    fuse = commands.add_parser("fuse", help="fuse a pair of images, two folders of them, or two videos")
    fuse.add_argument("--visible", metavar="A", help="visible image, or a folder of them; or a video")
    fuse.add_argument("--infrared", metavar="B", help="infrared image, or a folder with the same file stems")
    fuse.add_argument("--out", metavar="C", required=True, help="fused image or video, or the folder for fused images")
    fuse.add_argument("--example", action="store_true", help="fuse a night scene that the package draws itself")
    fuse.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    _add_model(fuse, "default: fusion; student with --video")
    fuse.add_argument("--sheet", action="store_true", help="also write infrared | visible | fused side by side")
    fuse.add_argument("--gray", action="store_true", help="write the fused luminance alone, without chroma")
    fuse.add_argument(
        "--format", metavar="F", help="png (default), jpg, tiff, webp or bmp; for one file its ending says so"
    )
    fuse.add_argument("--bits", type=int, choices=(8, 16), default=8, help="bits per value; 16 as png or tiff")
    fuse.add_argument(
        "--infrared-range",
        metavar="LOW,HIGH",
        help="raw values of the infrared files that become black and white (default: for 16 bits the 0.5 and 99.5 "
        "percentiles of each image, for 8 bits 0,255)",
    )
    fuse.add_argument("--allow-large", action="store_true", help="fuse images of more than 8192 pixels a side too")
    fuse.add_argument(
        "--overwrite", action="store_true", help="fuse again the pairs of a folder that are there already"
    )
    fuse.add_argument("--verbose", action="store_true", help="say which canvases and programs a folder took")
    fuse.add_argument("--canvases", type=int, metavar="N", default=4, help="sizes a folder is padded to, at most (4)")
    fuse.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: 1 on a CPU, else up to 16)"
    )
    _add_compilation_cache(fuse)
    fuse.add_argument(
        "--distributed", action="store_true", help="join the JAX processes of a cluster; each takes a share"
    )
    fuse.add_argument("--video", action="store_true", help="A and B are videos, or folders of frames; C is a video")
    fuse.add_argument("--fps", metavar="R", help="frames per second where A and B are folders (25)")
    fuse.set_defaults(run=_fuse, passes_rest=False)

    evaluate = commands.add_parser(
        "evaluate",
        help="score fused images of one or several methods against their sources",
        description="Scores of fused images, each and as mean +- standard deviation (population); several methods side "
        "by side with ranks. Images match by file stem, whatever their endings. Colour images are compared on Y (luma, "
        "BT.601), and all are rounded to 8 bits. A scene that one folder lacks or that cannot be read is named and "
        "left out for all methods, and the exit status is 1.",
    )
    evaluate.add_argument(
        "--fused",
        metavar="[NAME=]F",
        required=True,
        action="append",
        help="fused image, or a folder of them; once for each method (its name: that of the folder)",
    )
    evaluate.add_argument("--visible", metavar="A", required=True, help="visible image, or a folder of them")
    evaluate.add_argument("--infrared", metavar="B", required=True, help="infrared image, or a folder of them")
    evaluate.add_argument(
        "--metrics", metavar="M,M", help="names such as EN,SD,VIF, or all (default: EN,SD,SF,AG,MI,SCD,VIF,Qabf,SSIM)"
    )
    evaluate.add_argument(
        "--convention",
        choices=("cddfuse", "tang", "vifb", "corrected"),
        default="cddfuse",
        help="which published script the numbers equal (cddfuse), or corrected: without their bugs, for new work",
    )
    for kind, what in (
        ("csv", "a row for each method and image, then mean, std and rank"),
        ("json", "everything"),
        ("markdown", "tables of the means and of all images"),
        ("latex", "a tabular of the means for booktabs"),
    ):
        evaluate.add_argument(f"--{kind}", metavar="FILE", help=f"write {what}")
    evaluate.add_argument(
        "--plot", metavar="FILE.png", help="draw bars of the means, as .png, .pdf or .svg (needs the extra [plot])"
    )
    evaluate.add_argument("--strict", action="store_true", help="end with status 2 at the first scene to be left out")
    evaluate.add_argument(
        "--language",
        action="store_true",
        help="also score towards sentences in CLIP space; each of the next five flags implies it",
    )
    evaluate.add_argument("--clip", metavar="C", help="CLIP folder or hub id (default: the compact CLIP)")
    evaluate.add_argument("--text", metavar="FILE.npz", help="sentences encoded by `langfuse-jax embed`")
    for role in ("goal", "visible-text", "infrared-text"):
        name = role.removesuffix("-text")
        evaluate.add_argument(
            f"--{role}", metavar="TEXT", action="append", help=f"{name} sentence instead of the usual one; repeatable"
        )
    _add_compilation_cache(evaluate)
    evaluate.set_defaults(run=_evaluate, passes_rest=False)

    demo = commands.add_parser("demo", help="serve a page to fuse images on, in a browser (needs the extra [demo])")
    demo.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="address to serve on (127.0.0.1)")
    demo.add_argument("--port", metavar="N", type=int, help="port to serve on (the first free one from 7860)")
    demo.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    _add_model(demo, "default: fusion")
    _add_compilation_cache(demo)
    demo.set_defaults(run=_demo, passes_rest=False)

    export = commands.add_parser("export", help="write network and weights to a file that JAX alone can run")
    export.add_argument("--out", metavar="FILE", required=True, help="the jax.export artefact, such as model.stablehlo")
    export.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    _add_model(export, "default: fusion")
    export.set_defaults(run=_export, passes_rest=False)

    embed = commands.add_parser("embed", help="encode the three sentences into a text file for training")
    embed.add_argument("--clip", metavar="C", default=None, help="CLIP folder or hub id (default: the compact CLIP)")
    for role in ("visible", "infrared", "goal"):
        embed.add_argument(f"--{role}", metavar="TEXT", action="append", help=f"{role} sentence; may be repeated")
    embed.add_argument("--out", metavar="FILE.npz", required=True, help="where to write the embeddings")
    embed.set_defaults(run=_embed, passes_rest=False)

    train = commands.add_parser("train", help="train a fusion network towards the sentences of a config")
    train.add_argument("--config", required=True, metavar="FILE.py", help="a config such as configs/default.py")
    train.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics and sheets go here")
    train.add_argument("--override", action="store_true", help="go on in a workdir that another config began")
    train.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0, where JAX does not recognise the cluster"
    )
    train.add_argument("--num-processes", type=int, metavar="N", help="with --coordinator: JAX processes in all")
    train.add_argument("--process-id", type=int, metavar="I", help="with --coordinator: which of them this is, from 0")
    train.add_argument("--profile", type=int, metavar="N", default=0, help="write a trace of N steps into the workdir")
    train.set_defaults(run=_train, passes_rest=True)

    data = commands.add_parser("data", help="prepare a dataset of pairs for training")
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="a downloaded dataset to ArrayRecord files")
    build.add_argument("dataset", choices=("roadscene", "msrs", "llvip", "m3fd", "tno", "folder"))
    build.add_argument("--source", metavar="DIR", required=True, help="the folder as it was downloaded")
    build.add_argument("--out", metavar="DIR", default="data", help="root of the prepared datasets (data)")
    build.add_argument("--name", metavar="NAME", help="name of the prepared dataset (default: that of DATASET)")
    build.add_argument("--overwrite", action="store_true", help="prepare again what is there already")
    build.set_defaults(run=_data_build, passes_rest=False)

    clip = commands.add_parser("train-clip", help="train the compact CLIP that comes with the package")
    clip.add_argument("--config", required=True, metavar="FILE.py", help="a config such as configs/compact_clip.py")
    clip.add_argument("--out", required=True, metavar="DIR", help="folder for the model in Hugging Face format")
    clip.set_defaults(run=_train_clip, passes_rest=True)
    distill = commands.add_parser("distill", help="train a small, fast student to fuse as a trained network does")
    distill.add_argument("--config", required=True, metavar="FILE.py", help="a config such as configs/student.py")
    distill.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics and the student go here")
    distill.set_defaults(run=_distill, passes_rest=True)
    for configured in (train, clip, distill):
        configured.epilog = "Any value of the config can be overridden: --config.x=y"

    convert = commands.add_parser("convert", help="weights of other projects to this one's files, and back")
    models = convert.add_subparsers(dest="model", metavar="MODEL", required=True)
    fusion = models.add_parser("fusion", help="the published encoder and decoder (torch) to a checkpoint, or back")
    fusion.add_argument("--encoder", metavar="ENC.pt", help="published encoder, a torch state dict")
    fusion.add_argument("--decoder", metavar="DEC.pt", help="published decoder, a torch state dict")
    fusion.add_argument("--out", metavar="DIR", help="folder for the checkpoint")
    fusion.add_argument(
        "--pad-multiple",
        metavar="N",
        help="fuse images reflected to sides that are multiples of it (ENC.pt.json, or 1)",
    )
    fusion.add_argument(
        "--worn-edge", metavar="N", help="outermost pixels that the network is not to see (ENC.pt.json, or 0)"
    )
    fusion.add_argument("--to-torch", metavar="DIR", help="the other way: a checkpoint of this package")
    fusion.add_argument(
        "--out-encoder", metavar="ENC.pt", help="with --to-torch: encoder file to write, and ENC.pt.json"
    )
    fusion.add_argument("--out-decoder", metavar="DEC.pt", help="with --to-torch: decoder file to write")
    fusion.set_defaults(run=_convert_fusion, passes_rest=False)
    vgg19 = models.add_parser("vgg19", help="torchvision's or timm's VGG19 to the part the perceptual loss needs")
    vgg19.add_argument("--weights", metavar="FILE", required=True, help="vgg19 as .pth or .safetensors")
    vgg19.add_argument("--out", metavar="FILE.safetensors", required=True, help="where to write the convolutions")
    vgg19.set_defaults(run=_convert_vgg19, passes_rest=False)
    return parser


def _add_model(parser, default):
    parser.add_argument(
        "--model",
        choices=("fusion", "student"),
        help=f"which weights of the package: the best or the fast ones ({default})",
    )


def _add_compilation_cache(parser):
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="folder that keeps compiled programs, or off (default: $LANGFUSE_JAX_COMPILATION_CACHE, "
        "$JAX_COMPILATION_CACHE_DIR, or langfuse_jax in the user's cache folder)",
    )


def _show_warning(others, message, category, *place):
    if issubclass(category, CutPrompt):
        print(f"langfuse-jax: warning: {message}", file=sys.stderr)
    else:
        others(message, category, *place)


def main(argv=None):
    """Run one sub-command and return its exit status: 0 done, 1 partly done, 2 a user's error, 75 `Preempted`."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not args.passes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # Warnings of the runtime's C++ side would bury the one line a user needs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch: none is needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CutPrompt)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            return args.run(args, rest) or 0
    except UserError as error:
        print(f"langfuse-jax: error: {error}", file=sys.stderr)
        return 2
    except Preempted as stop:
        print(f"langfuse-jax: {stop}", file=sys.stderr)
        return 75  # EX_TEMPFAIL of sysexits.h: try again later
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
