#!/usr/bin/env python3
"""Writes the fixtures of oboro-learn: values and gradients in float64.

    python3 scripts/oracles/make_fixtures.py [--here] [--check]

Without --here it makes a virtual environment with the pinned packages of
requirements.txt in a temporary folder, runs there and removes it. --check
writes nothing and fails if the checked-in fixtures differ.

Where a published implementation exists (pytorch-metric-learning, geoopt,
scikit-learn) it is the oracle, and the torch code of losses.py, written from
the formulas, has to agree with it. What has none (the MPA family, CHEST,
HypHC, the HIER-style term, SparseSoftTriple's L1) is losses.py alone,
reconstructed from the cited building blocks; every gradient is then compared
with finite differences, and the family's identities are asserted.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent / "crates/oboro-learn/tests/fixtures"


def in_own_environment(arguments):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = pathlib.Path(folder) / "bin/python"
        requirements = HERE / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        command = [python, str(HERE / "make_fixtures.py"), "--here", *arguments]
        return subprocess.run(command, check=False).returncode


def same(old, new):
    """Equal but for the last digits of numbers."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(same(old[k], new[k]) for k in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(same(a, b) for a, b in zip(old, new))
    if isinstance(old, float) or isinstance(new, float):
        return abs(old - new) <= 1e-11 * max(1.0, abs(old))
    return old == new


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", action="store_true", help="use this interpreter's packages")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    if not options.here:
        sys.exit(in_own_environment(["--check"] if options.check else []))

    sys.dont_write_bytecode = True
    import cases

    differing = []
    for name, content in cases.everything().items():
        path = FIXTURES / f"{name}.json"
        if options.check:
            if not path.exists() or not same(json.loads(path.read_text()), content):
                differing.append(path.name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        print(f"{path.name}: {path.stat().st_size} bytes")
    if differing:
        sys.exit("differ from what the oracles give: " + ", ".join(differing))


if __name__ == "__main__":
    main()
