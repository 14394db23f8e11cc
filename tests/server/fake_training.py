"""Stands for `lsp-charrnn` where a test needs a training whose course it knows: `FAKE_TRAINING` says which."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds that it goes on if nobody stops it


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> int:
    course = os.environ["FAKE_TRAINING"]
    if course == "asleep":  # it has not come to hear of anything
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Path("asleep").touch()
        time.sleep(PATIENCE)
    if course == "no torch":
        print("error: this needs the package 'torch', which is not installed: pip it.", file=sys.stderr)
        return 2
    if course == "crash":
        print("Traceback\nerror in the user's secret text", file=sys.stderr)
        return 1
    say(phase="reading")
    print("not JSON", flush=True)
    if course == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        say(phase="training", share=0.5, step=7, minutes_left=2.2, best_bits=1.5)
        end = time.monotonic() + PATIENCE
        while course in ("long", "deaf") and time.monotonic() < end:
            say(phase="training", share=0.6, step=8, minutes_left=0.5, best_bits=None)
            time.sleep(0.02)
    except KeyboardInterrupt:
        Path("tuned.training").mkdir(exist_ok=True)
        Path("tuned.training/checkpoint.safetensors").touch()
        return 130
    say(phase="judging", share=0.5)
    facts = {"arguments": sys.argv[1:], "threads": os.environ["OMP_NUM_THREADS"], "cwd": str(Path.cwd())}
    if hasattr(os, "nice"):
        facts["nice"] = os.nice(0)
    better = course == "better"
    say(phase="done", model="somewhere", installed=better, sentence="12.0 % fewer bits on 3 files", report=facts)
    if not better:
        print("error: the new model is no better: train longer.", file=sys.stderr)
    return 0 if better else 2


if __name__ == "__main__":
    sys.exit(main())
