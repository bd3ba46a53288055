"""The tool that compares two builds: ratios of times, one line for each family."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "compare_builds.py"

spec = importlib.util.spec_from_file_location("compare_builds", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def test_the_second_one_takes_so_many_times_as_long():
    seconds, ratio = tool.compare(lambda: time.sleep(1e-3), lambda: time.sleep(8e-3), 0.05)
    assert seconds >= 1e-3
    assert ratio > 1.5


def test_families_are_summed_up():
    lines = list(tool.summary({"mask/a": 1.0, "mask/b": 1.2, "mask/c": 0.9, "update/a": 1.5}))
    assert lines == [
        "mask: 1.00 in the middle of 3 (0.90 to 1.20), 1 above 1.05",
        "update: 1.50 in the middle of 1 (1.50 to 1.50), 1 above 1.05",
    ]


def test_a_folder_without_the_package_is_named(tmp_path):
    command = [sys.executable, str(TOOL), str(tmp_path), str(tmp_path), "mask"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == f"there is no package fastdrop in {tmp_path}"
