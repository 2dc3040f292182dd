#!/usr/bin/env bash
# Exact arithmetic on 64-bit ARM under emulation, with torch 2.9, against this machine: pictures are
# drawn, compressed, decoded, resized and embedded there and here, and both versions must be one.
# Debian's packages and Python's wheels are fetched into FOLDER, about 400 MB, and kept there; nothing
# is installed. Run: tests/arm/run.sh PYTHON FOLDER
set -euo pipefail
python=$1
folder=$(mkdir -p "$2" && cd "$2" && pwd)
root=$folder/root site=$folder/site
here=$(cd "$(dirname "$0")/../.." && pwd)

debian_packages() {
    # Debian 12's, whose Python is 3.11.
    echo libc6 libgcc-s1 gcc-12-base libstdc++6 zlib1g libssl3 libffi8 libbz2-1.0 liblzma5 libexpat1 \
        libgomp1 libuuid1 libcrypt1 libatomic1 libsqlite3-0 \
        python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
}

if [ ! -e "$root/.ready" ]; then
    mkdir -p "$folder/lists/partial" "$folder/debs" "$root"
    options=(-oAPT::Architecture=arm64 -oAPT::Architectures=arm64
        -oDir::State::Lists="$folder/lists" -oDir::State::status=/dev/null)
    apt-get "${options[@]}" update
    (cd "$folder/debs" && apt-get "${options[@]}" download $(debian_packages))
    (cd "$folder/debs" && apt-get download qemu-user-static)
    for package in "$folder"/debs/*_arm64.deb; do dpkg -x "$package" "$root"; done
    dpkg -x "$folder"/debs/qemu-user-static_*.deb "$folder/qemu"
    touch "$root/.ready"
fi

if [ ! -e "$site/.ready" ]; then
    mkdir -p "$folder/wheels"
    "$python" -m pip download --quiet --dest "$folder/wheels" --only-binary=:all: --no-deps \
        --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
        --platform manylinux2014_aarch64 --platform any \
        -r "$here/tests/arm/wheels.txt"
    for wheel in "$folder"/wheels/*.whl; do
        "$python" -m zipfile -e "$wheel" "$site"
    done
    # What `pip install` would leave of vocprep itself: its name and version.
    mkdir -p "$site/vocprep-0.dist-info"
    "$python" -c 'from importlib.metadata import version; print("Name: vocprep\nVersion:", version("vocprep"))' \
        > "$site/vocprep-0.dist-info/METADATA"
    touch "$site/.ready"
fi

run_there() {
    PYTHONPATH=$here:$site PYTHONHOME=$root/usr OMP_NUM_THREADS=1 \
        "$folder/qemu/usr/bin/qemu-aarch64-static" -cpu max -L "$root" \
        "$root/usr/bin/python3.11" "$@"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
expected=$(PYTHONPATH=$here "$python" "$here/tests/arm/build_there.py" "$work/here")
found=$(run_there "$here/tests/arm/build_there.py" "$work/there")
printf 'here\n%s\non 64-bit ARM\n%s\n' "$expected" "$found"
[ "$expected" = "$found" ]
