"""Time publishing against a Hub on loopback: the sample in 14 languages, again, changed, and padded.

Prints wall seconds and peak memory of whole processes; the Hub runs in the process that measures, not in
them. The padded build has the same files with incompressible texts: if memory is flat, its peak is the
sample's.
"""

from __future__ import annotations

import argparse
import base64
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from hub_server import LoopbackHub
from publishing import NAME, command, edited, environment, retranslated

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.core.schema import Row

LOAD = (
    "from datasets import load_dataset; assert load_dataset('acme/polyrefuse', 'yo', split='test').num_rows"
)


def measure(what: str, arguments: list[str], hub: LoopbackHub, home: Path, folder: Path) -> None:
    """Run a process, and print how long it took and how much memory it alone had at its peak."""
    probe = (
        "import resource, subprocess, sys\n"
        "status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(status)\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], env=environment(hub, home), capture_output=True, text=True
    )
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(
        f"{what:46} {megabytes:7.1f} MB {wall:7.2f} s wall {int(done.stdout.split()[-1]) / 1000:7.0f} MB peak"
    )


def padded(source: Path, target: Path, characters: int) -> Path:
    """Copy a build with as many random characters more in every text."""
    generator = random.Random(0)

    def pad(row: Row) -> Row:
        noise = base64.b64encode(generator.randbytes(characters * 3 // 4)).decode()
        return replace(row, text=f"{row.text} {noise}")

    return edited(source, target, pad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pad", type=int, default=5000, help="characters more in each text of the padded build"
    )
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sample = folder / "sample"
        build(BuildRequest("sample", out=sample))
        changed = retranslated(sample, folder / "changed")
        big = padded(sample, folder / "big", options.pad)
        to = ["--to", NAME, "--gated", "manual"]
        with LoopbackHub() as hub:
            measure("publish and read back", command("publish", sample, *to), hub, folder / "h", sample)
            measure(
                "the same again, nothing sent", command("publish", sample, *to), hub, folder / "h", sample
            )
            measure(
                "another version, Yoruba changed",
                command("publish", changed, *to),
                hub,
                folder / "h",
                changed,
            )
            measure("load_dataset of one language", [sys.executable, "-c", LOAD], hub, folder / "h", sample)
            measure(
                "diff of two versions on the Hub",
                command("diff", f"{NAME}@v1.0.0", NAME),
                hub,
                folder / "h",
                sample,
            )
        with LoopbackHub() as hub:
            measure("padded: publish and read back", command("publish", big, *to), hub, folder / "h", big)
            measure("padded: the same again", command("publish", big, *to), hub, folder / "h", big)


if __name__ == "__main__":
    main()
