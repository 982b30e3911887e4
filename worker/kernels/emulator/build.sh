#!/usr/bin/env bash
# Compiles the emulated GPU into a folder: libcuda.so.1 and libcublasLt.so.12, for tests on hosts without a GPU.
#   worker/kernels/emulator/build.sh FOLDER
# A folder that has what the sources give is left as it is.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
out=$1
sources=("$here"/*.[ch]pp "$here"/../*.cu "$here"/../*.cuh "$here/../../src/ops/cuda/kernels.rs" "$0")
state=$(cat "${sources[@]}" | sha256sum)
[ "$(cat "$out/state" 2>/dev/null)" = "$state" ] && exit
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
for kernel in "$here"/../*.cu; do echo "#include \"$kernel\""; done >"$work/kernels.inc"
# The kernels are those that the worker asks for.
sed -n '/NAMES: /,/];/s/^ *"\([a-z0-9_]*\)",$/\1/p' "$here/../../src/ops/cuda/kernels.rs" | while read -r name; do
    for type in f32 bf16 f16; do echo "ENTRY(${name}_$type)"; done
done >"$work/entries.inc"
# Products and sums are rounded one by one, as on the GPU.
options=(-std=c++17 -shared -fPIC -ffp-contract=off -U_FORTIFY_SOURCE -I"$work")
c++ "${options[@]}" -O1 -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so.1" "$here/driver.cpp" &
c++ "${options[@]}" -O3 -c -o "$work/blas.o" "$here/blas.cpp"
wait $!
# It queues its products on the driver's streams.
c++ -shared -Wl,-soname,libcublasLt.so.12 -Wl,-rpath,'$ORIGIN' -o "$work/libcublasLt.so.12" "$work/blas.o" "$work/libcuda.so.1"
rm "$work/blas.o"
echo "$state" >"$work/state"
rm -rf "$out"
# Another process may have been faster, with the same.
mv -T "$work" "$out" 2>/dev/null || [ -f "$out/state" ]
trap - EXIT
