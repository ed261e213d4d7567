"""A table of benchmarks/quality.py beside what is reported of published networks.

    python benchmarks/quality.py --data-root DATA --out runs/quality > runs/quality.txt
    python benchmarks/reported.py runs/quality.txt

The reported means are of TNO, other pairs than ours, in the same convention. Prints, for each model in the table, its
mean rank over the ten metrics among the networks, the average and the maximum as reported; the best of the others;
and in which metrics it is below the networks' median, as it is and with the average of the same pairs taken off both.
"""

import sys
from pathlib import Path

import numpy as np

METRICS = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM", "SSIM_L255")
NETWORKS = {
    "DenseFuse": (6.82, 34.8, 8.99, 3.54, 1.59, 1.78, 0.658, 0.446, 1.02, 1.38),
    "FusionGAN": (6.56, 30.7, 6.28, 2.41, 1.62, 1.38, 0.422, 0.234, 0.661, 1.22),
    "IFCNN": (6.85, 37.1, 13.0, 5.09, 1.42, 1.78, 0.629, 0.481, 1.01, 1.34),
    "PIAFusion": (6.81, 37.1, 9.62, 3.81, 2.32, 1.6, 0.74, 0.529, 0.991, 1.37),
    "PMGI": (7.02, 38.0, 8.77, 3.58, 1.63, 1.7, 0.631, 0.412, 0.965, 1.34),
    "RFN-Nest": (6.96, 36.9, 5.87, 2.66, 1.46, 1.78, 0.559, 0.335, 0.814, 1.31),
    "SDNet": (6.69, 33.7, 11.6, 4.59, 1.56, 1.56, 0.578, 0.43, 0.975, 1.31),
    "SeAFusion": (7.13, 44.2, 12.3, 4.96, 1.96, 1.73, 0.704, 0.488, 0.962, 1.3),
    "U2Fusion": (7.0, 37.7, 11.9, 5.0, 1.39, 1.78, 0.619, 0.427, 0.945, 1.28),
}
AVERAGE = (6.35, 24.8, 6.43, 2.5, 1.54, 1.6, 0.576, 0.351, 1.01, 1.46)
MAXIMUM = (6.78, 38.6, 9.5, 3.54, 4.72, 1.56, 0.942, 0.602, 0.994, 1.35)


def read_table(path):
    """The ten metrics of each method in the table that quality.py printed."""
    rows = [line.strip("| \n").split(" | ") for line in Path(path).read_text().splitlines() if line.startswith("| ")]
    return {name: np.array(cells[: len(METRICS)], float) for name, *cells in rows if name != "method"}


def below(values, medians):
    return ", ".join(name for name, low in zip(METRICS, values < medians, strict=True) if low) or "none"


def main():
    ours = read_table(sys.argv[1])
    networks = np.array(list(NETWORKS.values()))
    names = [*NETWORKS, "average", "maximum"]
    for model in ("fusion", "student"):
        table = np.stack([*networks, AVERAGE, MAXIMUM, ours[model]])
        *ranks, rank = (table[None] > table[:, None]).sum(1).mean(1) + 1
        best = int(np.argmin(ranks))
        lower = below(ours[model], np.median(networks, axis=0))
        added = below(ours[model] - ours["average"], np.median(networks - AVERAGE, axis=0))
        print(f"{model}: mean rank {rank:.1f}, then {names[best]} {ranks[best]:.1f}; below the median in {lower};")
        print(f"  with the average taken off in {added}")


if __name__ == "__main__":
    main()
