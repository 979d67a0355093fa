#!/usr/bin/env bash
# Makes the data set of BENCHMARKS.md: 1,000,000 SIFT descriptors of real
# pictures, 10,000 queries from other pictures, exact nearest neighbours.
#
# usage: scripts/bench-data.sh OUTDIR
#
# The pictures come out of Debian 12 packages (wallpapers, documentation,
# games), so any machine with Debian's package lists can repeat it. Needs
# `apt-get update` done once, python3 with venv, dpkg; about 0.8 GB of download,
# 2 GB of disk, 3 GB of memory, 5 minutes of one core. OUTDIR gets base.fvecs,
# query.fvecs, groundtruth.ivecs and stats.json; OUTDIR/work may be deleted.
set -euo pipefail

if [ $# -ne 1 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$out/work
mkdir -p "$work/packages" "$work/files"

packages=(
    gcompris-qt-data stellarium-data opencv-doc plasma-workspace-wallpapers
    lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 gnome-backgrounds
    mate-backgrounds ukui-wallpapers palapeli-data lxqt-themes
    tuxpaint-stamps-default python3-skimage python3-sklearn
)

if [ ! -x "$work/venv/bin/python" ]; then
    echo "making a Python environment" >&2
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet numpy opencv-python-headless faiss-cpu
fi
for package in "${packages[@]}"; do
    [ -d "$work/files/$package" ] && continue
    echo "fetching $package" >&2
    (cd "$work/packages" && apt-get download --quiet "$package")
    dpkg -x "$work/packages/$package"_*.deb "$work/files/$package.partial"
    mv "$work/files/$package.partial" "$work/files/$package"
done
"$work/venv/bin/python" "$here/bench_data.py" "$work" "$out"
