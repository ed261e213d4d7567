"""Two cameras, or two videos, fused live by onnxruntime: needs opencv-python and onnxruntime, neither JAX nor a GPU.

    langfuse-jax export --out model.onnx
    python examples/webcam.py model.onnx 0 1               # devices 0 (visible) and 1 (infrared), in a window
    python examples/webcam.py model.onnx a.mp4 b.mp4 --port 8000   # MJPEG at http://127.0.0.1:8000

--alignment takes the file of `langfuse-jax align`; without it the infrared image is scaled to the visible one.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import numpy as np
import onnxruntime


def fused_frames(args):
    session = onnxruntime.InferenceSession(args.model)
    goal = json.loads(session.get_modelmeta().custom_metadata_map["default_goal"])
    goal = np.float32(np.load(args.words)["goal"] if args.words else goal)
    rig = json.load(open(args.alignment)) if args.alignment else None
    cameras = [cv2.VideoCapture(int(name) if name.isdigit() else name) for name in (args.visible, args.infrared)]
    if not all(camera.isOpened() for camera in cameras):
        raise SystemExit(f"{args.visible} or {args.infrared}: cannot be opened; give a device's number or a video")
    while all(camera.grab() for camera in cameras):
        visible, infrared = (camera.retrieve()[1] for camera in cameras)
        size, thermal = visible.shape[1::-1], cv2.cvtColor(infrared, cv2.COLOR_BGR2GRAY)
        if rig:
            sizes = [list(size), list(thermal.shape[::-1])]
            if not rig["accepted"] or sizes != [rig["visible_size"], rig["infrared_size"]]:
                raise SystemExit(f"{args.alignment}: was refused, or is for frames of other sizes than {sizes}")
            beyond = cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)  # kept where there is no infrared
            cv2.warpPerspective(thermal, np.float64(rig["matrix"]), size, beyond, borderMode=cv2.BORDER_TRANSPARENT)
            thermal = beyond
        elif thermal.shape[::-1] != size:
            thermal = cv2.resize(thermal, size)
        colour = cv2.cvtColor(visible, cv2.COLOR_BGR2YCrCb)
        luma, heat = (np.float32(image)[None, None] / 255 for image in (colour[..., 0], thermal))
        fused = session.run(["fused"], {"visible": luma, "infrared": heat, "goal": goal})[0][0, 0]
        colour[..., 0] = np.rint(255 * fused)
        yield cv2.cvtColor(colour, cv2.COLOR_YCrCb2BGR)


def serve(frames, port):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/":  # a browser also asks for an icon
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for frame in frames:
                jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n")
            self.server.ended = True

    server = HTTPServer(("127.0.0.1", port), Page)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.ended = False
    while not server.ended:  # a viewer may leave and come back
        server.handle_request()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what `langfuse-jax export --out model.onnx` wrote")
    parser.add_argument("visible", help="number of a device, or a video")
    parser.add_argument("infrared", help="likewise")
    parser.add_argument("--words", help="what `langfuse-jax embed --goal SENTENCE --out words.npz` wrote")
    parser.add_argument("--alignment", help="what `langfuse-jax align` wrote")
    parser.add_argument(
        "--port", type=int, help="serve MJPEG on this computer instead of opening a window; 0: any port"
    )
    args = parser.parse_args()
    frames = fused_frames(args)
    if args.port is not None:
        return serve(frames, args.port)
    for frame in frames:
        cv2.imshow("fused (q ends)", frame)
        if cv2.waitKey(1) == ord("q"):
            return


if __name__ == "__main__":
    main()
