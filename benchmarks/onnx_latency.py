"""The default model in onnxruntime against ours: `python benchmarks/onnx_latency.py [--size 480 640]`.

Needs the extra [onnx]. Both run in this process, in turns of five calls, on the same arrays, compiled before, each with
--threads threads (by default one for each core that the process may use). onnxruntime's threads sleep between its
operators, since those that wait busily (--spin, its default) take the processor from what runs in turn with them.
Prints medians of wall time and of processor time over all cores, and how far the two pictures differ.
"""

import argparse
import os
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--spin", action="store_true")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])  # before XLA counts them

    import jax
    import onnxruntime

    from langfuse_jax import Fuser
    from langfuse_jax.examples.night_scene import night_scene
    from langfuse_jax.images.files import rgb_to_ycbcr, to_unit
    from langfuse_jax.inference.onnx import export_onnx

    fuser = Fuser.load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(args.spin)))
    session = onnxruntime.InferenceSession(export_onnx(fuser), options, providers=["CPUExecutionProvider"])
    visible, infrared = (to_unit(image, "image") for image in night_scene(*args.size))
    visible = rgb_to_ycbcr(visible)[0] if visible.ndim == 3 else visible
    feed = {"visible": visible[None, None], "infrared": infrared[None, None], "goal": fuser.default_goal}
    calls = {
        "ours": lambda: fuser(visible, infrared),
        "onnxruntime": lambda: session.run(None, feed)[0][0, 0],
    }
    pictures = {name: call() for name, call in calls.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            for _ in range(5):
                start = time.perf_counter(), time.process_time()
                call()
                taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    print(
        f"jax {jax.__version__}, onnxruntime {onnxruntime.__version__}, {args.threads} threads for each, "
        f"load {os.getloadavg()[0]:.1f}, {args.size[0]}x{args.size[1]}"
    )
    medians = {
        name: [1e3 * statistics.median(times) for times in zip(*all_, strict=True)] for name, all_ in taken.items()
    }
    for name, (wall, processor) in medians.items():
        ratios = f"{wall / medians['ours'][0]:.2f} / {processor / medians['ours'][1]:.2f} of ours"
        print(f"{name}: {wall:.1f} ms, {processor:.1f} of the processors; {ratios}")
    print(f"largest difference: {abs(pictures['ours'] - pictures['onnxruntime']).max():.1e}")


if __name__ == "__main__":
    main()
