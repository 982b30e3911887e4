#!/usr/bin/env python3
"""Holds what `quality.json` says of vLLM against what vLLM did: `rules.py CHECKPOINT vllm.json`.

The rules are read from vLLM's sources; this is where a wrong one shows.
"""

import json
import os
import sys

checkpoint, report = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
with open(os.path.join(checkpoint, "quality.json"), encoding="utf-8") as file:
    said = next(engine for engine in json.load(file)["engines"] if engine["engine"] == "vllm")
did = report[checkpoint]["load"]
agree = (said["answer"] == "loads") == (did == "pass")
print(f"VERDICT rules {'PASS' if agree else 'FAIL'} {os.path.basename(checkpoint)}: "
      f"the rules of {said['version']} say `{said['answer']}`, vLLM's load is `{did}`")
sys.exit(0 if agree else 1)
