"""Line coverage of the C and Python sources by the test suite.

    python tests/measure_coverage.py [argument of pytest ...]

works on a copy of the tree in a temporary folder, with an instrumented build. The suite forces
every instruction set of the machine by itself. Prints the lines that no test reaches, and ends with
status 1 where less than `LEAST` percent of either language is reached. Needs the packages of the
extra ``coverage``.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEAST = 95
# Much work for the slow instrumented kernels, and no line that other tests do not reach.
LEFT_OUT = ("test_statistics.py", "test_estimators_checks.py", "test_bench*.py")

# Child processes are measured too: many tests look at fresh interpreters.
CONFIGURATION = """
[run]
source = fastdrop
parallel = true
patch = subprocess
data_file = {folder}/data/coverage
[report]
show_missing = true
skip_covered = true
"""


def copy_tree(target):
    """Copy what is committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def main(arguments):
    """Build, run the tests, and report; return the status."""
    with tempfile.TemporaryDirectory(prefix="fastdrop-coverage-") as folder:
        tree = pathlib.Path(folder, "tree")
        copy_tree(tree)
        settings = pathlib.Path(folder, "coveragerc")
        settings.write_text(CONFIGURATION.format(folder=folder))
        pathlib.Path(folder, "data").mkdir()
        environment = {**os.environ, "FASTDROP_BUILD": "coverage", "PYTHONPATH": str(tree)}

        def run(*command):
            return subprocess.run(command, cwd=tree, env=environment).returncode

        python = sys.executable
        if run(python, "setup.py", "-q", "build_ext", "--inplace"):
            return 1
        measure = [python, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest"]
        left_out = [f"--ignore-glob=*/{name}" for name in LEFT_OUT]
        failed = run(*measure, "-q", "-p", "no:cacheprovider", *left_out, *arguments)
        run(python, "-m", "coverage", "combine", "-q", f"--rcfile={settings}")
        print("\n=== Python", flush=True)
        low = run(
            python, "-m", "coverage", "report", f"--rcfile={settings}", f"--fail-under={LEAST}"
        )
        print("\n=== C", flush=True)
        # A header's line counts as reached where any instruction set's copy of it is.
        gcovr = [python, "-m", "gcovr", "--root", ".", "--filter", "src/", "--txt-summary", "--txt"]
        merged = ["--merge-mode-functions", "merge-use-line-min", "--sort", "uncovered-percent"]
        # Threads count side by side without locks, and lose a few.
        lossy = ["--gcov-ignore-parse-errors", "negative_hits.warn_once_per_file"]
        low |= run(*gcovr, *merged, *lossy, "--fail-under-line", str(LEAST))
        return failed or low


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
