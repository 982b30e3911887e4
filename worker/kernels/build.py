#!/usr/bin/env python3
"""Compiles the kernels with NVRTC from its PyPI wheel; no GPU, driver or toolkit is needed.

usage: build.py [--check]     see run.sh, which brings the wheel
  --check   writes nothing, and fails if what is committed is not what the sources give
"""

import ctypes
import glob
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BUILT = f"{HERE}/built"
# Real code for each generation that is served; PTX for those to come. The letter `a` allows what one generation alone has.
CUBINS = ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"]
PTX = "compute_80"
# Products and sums are rounded one by one, as on the CPU.
OPTIONS = ["--std=c++17", "--fmad=false", "-default-device"]


def nvrtc():
    """The library of the wheel that this Python has."""
    import nvidia.cuda_nvrtc

    folder = list(nvidia.cuda_nvrtc.__path__)[0]
    return ctypes.CDLL(f"{folder}/lib/libnvrtc.so.12")


def source():
    """All kernels as one program: one module is loaded on a device."""
    shared = [f"{HERE}/{name}.cuh" for name in ("numbers", "pieces", "e2m1", "e4m3")]
    parts = [*shared, *sorted(glob.glob(f"{HERE}/*.cu"))]
    texts = []
    for path in parts:
        with open(path, encoding="utf-8") as file:
            texts.append(f'#line 1 "{os.path.basename(path)}"\n{file.read()}')
    return "\n".join(texts).encode()


def compile_for(library, text, target):
    """PTX or a cubin for one target."""
    program = ctypes.c_void_p()
    require(library, library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None))
    options = [f"--gpu-architecture={target}", *OPTIONS]
    pointers = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = library.nvrtcCompileProgram(program, len(options), pointers)
    log = read(library, program, "ProgramLog").rstrip(b"\0").decode()
    if failed or "warning" in log:
        sys.exit(f"error: {target}:\n{log}")
    built = read(library, program, "PTX" if target.startswith("compute") else "CUBIN")
    require(library, library.nvrtcDestroyProgram(ctypes.byref(program)))
    return built.rstrip(b"\0") if target.startswith("compute") else built


def read(library, program, what):
    size = ctypes.c_size_t()
    require(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    require(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def require(library, code):
    if code:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        sys.exit(f"error: NVRTC: {library.nvrtcGetErrorString(code).decode()}")


def main():
    check = "--check" in sys.argv[1:]
    library, text = nvrtc(), source()
    os.makedirs(BUILT, exist_ok=True)
    stale = []
    for target in [PTX, *CUBINS]:
        name = "kernels.ptx" if target == PTX else f"{target}.cubin"
        built = compile_for(library, text, target)
        path = f"{BUILT}/{name}"
        if check:
            same = os.path.exists(path) and open(path, "rb").read() == built
            print(f"{name}: {'as committed' if same else 'DIFFERS'}")
            stale += [] if same else [name]
        else:
            with open(path, "wb") as file:
                file.write(built)
            print(f"{name}: {len(built)} bytes")
    if stale:
        sys.exit(f"error: {', '.join(stale)} are not what the sources give\nhint: run worker/kernels/run.sh and commit")


if __name__ == "__main__":
    main()
