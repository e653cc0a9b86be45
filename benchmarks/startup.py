"""How long a person waits before anything happens: seconds of `anodiff --help` and of `import anodiff`, best of 5.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

LIMITS = {"anodiff --help": 0.3, "import anodiff": 0.05}  # seconds


def help_seconds() -> float:
    """A whole process, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "anodiff", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def import_seconds() -> float:
    """The import alone, in a fresh interpreter."""
    code = "import time; start = time.perf_counter(); import anodiff; print(time.perf_counter() - start)"
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def main() -> int:
    """1 where a limit is broken."""
    best = {
        "anodiff --help": min(help_seconds() for _ in range(5)),
        "import anodiff": min(import_seconds() for _ in range(5)),
    }
    for name, seconds in best.items():
        print(f"{name:16} {seconds:.3f} s (limit {LIMITS[name]:g} s)")
    return int(any(seconds > LIMITS[name] for name, seconds in best.items()))


if __name__ == "__main__":
    sys.exit(main())
