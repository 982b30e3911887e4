"""Compares what `qlaunch recipe show` makes of ModelOpt's own recipe folder with digests of ModelOpt's own answers.

Usage: compare.py QLAUNCH MODELOPT_RECIPES DIGESTS
"""

import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUFFIXES = (".yaml", ".yml")


def bits(value):
    """Floats as `f64:<bits>`, because every language prints them its own way."""
    if isinstance(value, float):
        return "f64:" + struct.pack(">d", value).hex()
    if isinstance(value, list):
        return [bits(element) for element in value]
    if isinstance(value, dict):
        return {key: bits(field) for key, field in value.items()}
    return value


def digest(content):
    """SHA-256 of the canonical JSON, and the description, which the digest leaves out."""
    description = None
    if isinstance(content, dict) and isinstance(content.get("metadata"), dict):
        description = content["metadata"].pop("description", None)
    text = json.dumps(bits(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest(), description


def show(program, folder, recipes, name):
    """The resolved content of one entry as `qlaunch` prints it, with these recipes before its own, or the error."""
    call = subprocess.run(
        [program, "recipe", "show", name, "--format", "json", *(["--recipes", recipes] if recipes else [])],
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if call.returncode != 0:
        return None, call.stderr.strip()
    return json.loads(call.stdout), ""


def main():
    program, recipes = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    expected = json.loads(Path(sys.argv[3]).read_text())
    files = {
        str(path.relative_to(recipes).with_suffix(""))
        for path in recipes.rglob("*")
        if path.suffix in SUFFIXES and path.parts[-2] != "__pycache__"
    }
    faults = [f"{name}: in ModelOpt's folder, and without a digest" for name in sorted(files - set(expected))]
    faults += [f"{name}: not in ModelOpt's folder" for name in sorted(set(expected) - files)]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        names = sorted(files & set(expected))
        both = lambda name: tuple(show(program, Path(scratch), folder, name) for folder in (recipes, None))
        answers = pool.map(both, names)
        foreign = 0
        for name, ((content, error), (own, own_error)) in zip(names, answers):
            if content is None or own is None:
                faults.append(f"{name}: {error or own_error}")
                continue
            (found, description), (own_found, own_description) = digest(content), digest(own)
            foreign += description != own_description
            if found != expected[name]:
                faults.append(f"{name}: read from ModelOpt's folder it differs from ModelOpt's own answer")
            if own_found != expected[name]:
                faults.append(f"{name}: our own file differs from ModelOpt's answer")
    # Descriptions are in our own words: were none different, ModelOpt's folder would not have been read at all.
    if foreign == 0:
        faults.append("every description is our own: ModelOpt's folder was not read")
    print("\n".join(faults) if faults else f"{len(names)} entries agree, {foreign} descriptions are ModelOpt's own")
    return 1 if faults else 0


sys.exit(main())
