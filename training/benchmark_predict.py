"""How fast segmenting is, and how much memory it takes; beside MONAI's and nnU-Net's sliding window.

    OMP_NUM_THREADS=2 python training/benchmark.py predict --json     # or training/benchmark_predict.py --json

Runs the scripts benchmark_windows (with and without mirrored copies), benchmark_slice, benchmark_memory (200 and 1000
slices) and benchmark_command, each in a process of its own, one after the other, and prints a table; with --json, one JSON
line as well. What is not installed is skipped, and said. --quick does all of it in small, to see that it works.
"""

import argparse
import json
import tempfile
from pathlib import Path

INT8 = "ours, int8"


def rows_of(windows: dict, mirrored: str) -> list[tuple[str, str]]:
    """Everyone's seconds, and how many times ours are faster."""
    runs = windows["runs"]
    ours = [name for name in runs if name.startswith("ours")]
    best = [min((name for name in ours if name != INT8), key=lambda name: runs[name]["seconds"]), *(name for name in ours if name == INT8)]
    rows = [(f"{name}{mirrored}", f"{run['seconds']:.2f} s ({run['cpu_seconds']:.2f} CPU s), {run['equal']:.3%} MONAI's labels")
            for name, run in runs.items()]  # fmt: skip
    for rival in (name for name in runs if not name.startswith("ours")):
        for name in best:
            clock, cpu = (runs[rival][key] / runs[name][key] for key in ("seconds", "cpu_seconds"))
            rows.append((f"{name} against {rival}{mirrored}", f"{clock:.1f} times as fast ({cpu:.1f} times fewer CPU seconds)"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="where to draw memory over time")
    parser.add_argument("--quick", action="store_true", help="small volumes and networks")
    options = parser.parse_args()
    from benchmark import rival

    repeats, quick = ("--repeats", options.repeats), options.quick
    picture = ("--picture", options.picture) if options.picture else ()
    found: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        model, light = Path(folder) / "model.safetensors", Path(folder) / "light.safetensors"
        rival("benchmark_model.py", model, *(("--features", "4,8", "--patch", 32) if quick else ()))
        rival("benchmark_model.py", light, "--features", "8,16,32", *(("--patch", 32) if quick else ()))
        shape = ("--shape", "64,64,64", "--model", "phantoms") if quick else ()
        for name in ("no-mirror", "mirror"):
            found[name] = rival("benchmark_windows.py", f"--{name}", *shape, *repeats)
        found["slice"] = rival("benchmark_slice.py", model, *repeats, *(("--size", 64, "--slices", 8) if quick else ()))
        for slices in (200, 1000):
            size = ("--size", 64) if quick else ()
            found[f"memory {slices}"] = rival("benchmark_memory.py", light, "--slices", slices, *size, *picture)
        found["command"] = rival("benchmark_command.py", *repeats, *(("--model", "phantoms", "--shape", "32,64,64") if quick else ()))
    rows = [row for name, words in (("no-mirror", ""), ("mirror", ", mirrored")) if found[name] for row in rows_of(found[name], words)]
    rows += [(f"a slice, {runtime}", f"{run['seconds']:.2f} s from the request to its labels") for runtime, run in found["slice"].items()]
    rows += [(f"{n} slices", f"{found[f'memory {n}']['peak_mb']:.0f} MB over the input") for n in (200, 1000) if found[f"memory {n}"]]
    for name, run in found["command"].items():
        if isinstance(run, dict):
            rows.append((f"napari-unet {name}", f"{run['seconds']:.2f} s ({run['cpu_seconds']:.2f} CPU s)"))
    for name, value in rows:
        print(f"{name:40}  {value}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
