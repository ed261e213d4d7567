"""The nine usual metrics in numpy and scipy, the way the field writes them: what langfuse_jax is timed against.

Independent of langfuse_jax and in float64; the values are those of the "cddfuse" convention, for one (h, w) triple.
"""

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.signal import convolve2d


def entropy(fused):
    p = np.bincount(fused.astype(np.uint8).ravel(), minlength=256) / fused.size
    p = p[p > 0]
    return -np.sum(p * np.log2(p))


def standard_deviation(fused):
    return np.std(fused)


def spatial_frequency(fused):
    return np.sqrt(np.mean(np.diff(fused, axis=1) ** 2) + np.mean(np.diff(fused, axis=0) ** 2))


def average_gradient(fused):
    down, across = np.gradient(fused)
    return np.mean(np.sqrt((down**2 + across**2) / 2))


def mutual_information(fused, visible, infrared):
    return _information(fused, visible) + _information(fused, infrared)


def _information(x, y):
    counts, _, _ = np.histogram2d(x.ravel(), y.ravel(), bins=256, range=((-0.5, 255.5), (-0.5, 255.5)))
    p = counts / counts.sum()
    q = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    some = p > 0
    return np.sum(p[some] * np.log(p[some] / q[some]))


def sum_of_correlations_of_differences(fused, visible, infrared):
    def correlation(x, y):
        x, y = x - x.mean(), y - y.mean()
        return np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))

    return correlation(fused - visible, infrared) + correlation(fused - infrared, visible)


def visual_information_fidelity(fused, visible, infrared):
    return _vifp(visible, fused) + _vifp(infrared, fused)


def _vifp(source, fused, noise=2.0, least=1e-10):
    kept = whole = 0.0
    for scale in range(4):
        n = 2 ** (4 - scale) + 1
        at = np.arange(n) - n // 2
        window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * (n / 5) ** 2))
        window /= window.sum()

        def smooth(x, window=window):
            return convolve2d(x, window, mode="valid")

        if scale:
            source, fused = smooth(source)[::2, ::2], smooth(fused)[::2, ::2]
        ms, mf = smooth(source), smooth(fused)
        vs = np.maximum(smooth(source * source) - ms * ms, 0)
        vf = np.maximum(smooth(fused * fused) - mf * mf, 0)
        covariance = smooth(source * fused) - ms * mf
        gain = covariance / (vs + least)
        rest = vf - gain * covariance
        flat = vs < least
        gain[flat], rest[flat], vs[flat] = 0, vf[flat], 0
        lost = vf < least
        gain[lost], rest[lost] = 0, 0
        against = gain < 0
        rest[against], gain[against] = vf[against], 0
        rest = np.maximum(rest, least)
        kept += np.sum(np.log10(1 + gain**2 * vs / (rest + noise)))
        whole += np.sum(np.log10(1 + vs / noise))
    return kept / whole


def edge_preservation(fused, visible, infrared):
    def edges(image):
        kernel = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])
        x = convolve2d(image, np.rot90(kernel, -1), mode="same")
        y = convolve2d(image, kernel, mode="same")
        with np.errstate(divide="ignore", invalid="ignore"):
            angle = np.where(x == 0, np.pi / 2, np.arctan(y / x))
        return np.sqrt(x * x + y * y), angle

    def quality(source, target):
        (gs, at), (gf, af) = source, target
        with np.errstate(divide="ignore", invalid="ignore"):
            agreement = np.where(gs > gf, gf / gs, np.where(gs == gf, gf, gs / gf))
        turn = 1 - np.abs(at - af) / (np.pi / 2)
        return 0.9994 / (1 + np.exp(-15 * (agreement - 0.5))) * 0.9879 / (1 + np.exp(-22 * (turn - 0.8)))

    f, v, i = (edges(x) for x in (fused, visible, infrared))
    return np.sum(quality(v, f) * v[0] + quality(i, f) * i[0]) / np.sum(v[0] + i[0])


def structural_similarity(fused, visible, infrared):
    return _ssim(fused, visible) + _ssim(fused, infrared)


def _ssim(x, y, span=2.0, side=7):
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    correction = side**2 / (side**2 - 1)
    mx, my = uniform_filter(x, side), uniform_filter(y, side)
    vx, vy = (correction * (uniform_filter(z * z, side) - m * m) for z, m in ((x, mx), (y, my)))
    covariance = correction * (uniform_filter(x * y, side) - mx * my)
    values = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    border = side // 2
    return values[border:-border, border:-border].mean()


def evaluate(fused, visible, infrared):
    """{name: value} of the nine metrics of one triple of (h, w) images in 0-255."""
    images = [np.asarray(x, np.float64) for x in (fused, visible, infrared)]
    return {
        "EN": entropy(images[0]),
        "SD": standard_deviation(images[0]),
        "SF": spatial_frequency(images[0]),
        "AG": average_gradient(images[0]),
        "MI": mutual_information(*images),
        "SCD": sum_of_correlations_of_differences(*images),
        "VIF": visual_information_fidelity(*images),
        "Qabf": edge_preservation(*images),
        "SSIM": structural_similarity(*images),
    }
