#!/usr/bin/env bash
# Runs tests of the feature `gpu` on Debian where there is no GPU: on a Vulkan renderer that
# computes on the CPU. VK_DRIVER_FILES may name the file that describes one; otherwise it is
# SwiftShader, unpacked (not installed) out of the package chromium-common. It cannot run burn's
# matrix products, so it is given the tests without them, or those whose names are given.
# llvmpipe (Mesa 22.3 and 25.0) crashes on burn's kernels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! ldconfig -p | grep -q 'libvulkan\.so\.1'; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libvulkan1
fi
if [[ -z ${VK_DRIVER_FILES:-} ]]; then
    folder=$PWD/target/swiftshader
    if [[ ! -e $folder/vk_swiftshader_icd.json ]]; then
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        (cd "$scratch" && apt-get download -qq chromium-common)
        dpkg-deb -x "$scratch"/chromium-common_*.deb "$scratch/package"
        mkdir -p "$folder"
        (cd "$scratch/package/usr/lib/chromium" && cp libvk_swiftshader.so vk_swiftshader_icd.json "$folder")
    fi
    export VK_DRIVER_FILES=$folder/vk_swiftshader_icd.json
fi
if (($# == 0)); then
    set -- operations::convolutions operations::pooling operations::functions
fi
OBORO_TEST_RENDERER=1 cargo test -p oboro-learn --features gpu --test gpu -- --test-threads 1 "$@"
