#!/usr/bin/env bash
# Installs what the tests need beside Rust, on Debian and as root: a C compiler (linking,
# aws-lc-rs), valgrind (taint tracking), swtpm (a software TPM) and strace (kills and disk
# errors at chosen calls). Installs nothing that is already there.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v valgrind >/dev/null || missing+=(valgrind)
command -v swtpm >/dev/null || missing+=(swtpm)
command -v swtpm_setup >/dev/null || missing+=(swtpm-tools)
command -v strace >/dev/null || missing+=(strace)
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ((EUID != 0)); then
    echo "to install ${missing[*]}, run this as root" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
