"""Configuration: what show_config tells, where the number of threads comes from, bad settings."""

import os
import subprocess
import sys

import numpy
import pytest

import fastdrop
from fastdrop import config
from fastdrop._backend import kernels

AFFINITY = 8


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A made-up machine with 8 usable cores; returns a function that writes one of its files."""
    monkeypatch.setattr(config, "_affinity", lambda: AFFINITY)

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def threads(tmp_path, **environ):
    return config.default_num_threads(environ, root=str(tmp_path))


def test_without_limits_all_usable_cores(machine, tmp_path):
    assert threads(tmp_path) == AFFINITY


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("300000 100000", 3),
        ("250000 100000", 3),  # rounded up
        ("50000 100000", 1),
        ("1000000 100000", AFFINITY),  # more than there is
        ("max 100000", AFFINITY),
        ("nonsense", AFFINITY),
        ("", AFFINITY),
        ("100000 0", AFFINITY),
    ],
)
def test_cgroup_2(machine, tmp_path, quota, expected):
    machine("proc/self/cgroup", "0::/job\n")
    machine("sys/fs/cgroup/job/cpu.max", quota + "\n")
    assert threads(tmp_path) == expected


def test_cgroup_2_limits_of_all_levels_hold(machine, tmp_path):
    machine("proc/self/cgroup", "0::/user/job/step\n")
    machine("sys/fs/cgroup/user/cpu.max", "400000 100000\n")
    machine("sys/fs/cgroup/user/job/cpu.max", "200000 100000\n")
    machine("sys/fs/cgroup/user/job/step/cpu.max", "max 100000\n")
    assert threads(tmp_path) == 2


def test_cgroup_2_container_that_sees_the_path_of_the_host(machine, tmp_path):
    machine("proc/self/cgroup", "0::/docker/0123abcd\n")
    machine("sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert threads(tmp_path) == 2


@pytest.mark.parametrize("directory", ["cpu", "cpu,cpuacct"])
def test_cgroup_1(machine, tmp_path, directory):
    machine("proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/job\n1:cpuset:/\n")
    machine(f"sys/fs/cgroup/{directory}/job/cpu.cfs_quota_us", "150000\n")
    machine(f"sys/fs/cgroup/{directory}/job/cpu.cfs_period_us", "100000\n")
    assert threads(tmp_path) == 2


def test_cgroup_1_without_a_quota(machine, tmp_path):
    machine("proc/self/cgroup", "4:cpu:/\n")
    machine("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    machine("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert threads(tmp_path) == AFFINITY


def test_cgroup_path_stays_below_the_mount(machine, tmp_path):
    machine("proc/self/cgroup", "0::/../../elsewhere\n")
    machine("elsewhere/cpu.max", "100000 100000\n")
    assert threads(tmp_path) == AFFINITY


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2", 2), ("4,2", 4), (" 3 ", 3), ("99", AFFINITY), ("", AFFINITY), ("many", AFFINITY)]
    + [("0", AFFINITY), ("-1", AFFINITY), ("²", AFFINITY)],
)
def test_openmp_variable(machine, tmp_path, value, expected):
    assert threads(tmp_path, OMP_NUM_THREADS=value) == expected


def test_own_variable_overrules_everything(machine, tmp_path):
    machine("proc/self/cgroup", "0::/job\n")
    machine("sys/fs/cgroup/job/cpu.max", "100000 100000\n")
    environ = {"FASTDROP_NUM_THREADS": "12", "OMP_NUM_THREADS": "2"}
    assert threads(tmp_path, **environ) == 12
    assert threads(tmp_path, FASTDROP_NUM_THREADS="", OMP_NUM_THREADS="2") == 1


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1,2", "²", "4097"])
def test_own_variable_is_checked(value):
    with pytest.raises(ValueError, match="FASTDROP_NUM_THREADS must be an integer from 1") as error:
        config.default_num_threads({"FASTDROP_NUM_THREADS": value})
    assert repr(value) in str(error.value)


def test_this_machine():
    assert 1 <= config.default_num_threads({}) <= (os.cpu_count() or 1)


@pytest.fixture
def restore_threads():
    before = fastdrop.get_num_threads()
    yield
    fastdrop.set_num_threads(before)


@pytest.mark.usefixtures("restore_threads")
def test_set_num_threads():
    for n in (1, 2, numpy.int64(3)):
        fastdrop.set_num_threads(n)
        expected = n if kernels.build_info()["threads"] else 1
        assert fastdrop.get_num_threads() == expected


@pytest.mark.usefixtures("restore_threads")
def test_set_num_threads_checks():
    before = fastdrop.get_num_threads()
    for n in (0, -1):
        with pytest.raises(ValueError, match=rf"\bn\b.*, got {n}"):
            fastdrop.set_num_threads(n)
    for n in (1.5, "2", None):
        with pytest.raises(TypeError):
            fastdrop.set_num_threads(n)
    assert fastdrop.get_num_threads() == before


def test_show_config_dicts():
    shown = fastdrop.show_config(mode="dicts")
    build = kernels.build_info()
    assert shown["fastdrop"]["version"] == fastdrop.__version__
    assert shown["fastdrop"]["backend"] in ("c", "numpy")
    assert shown["fastdrop"]["compiler"] == build["compiler"]
    assert shown["isa"]["used"] in shown["isa"]["available"]
    assert shown["threads"] == {
        "number": fastdrop.get_num_threads(),
        "built_in": build["threads"],
    }
    assert shown["numpy"]["version"] == numpy.__version__
    assert shown["numpy"]["blas"]["name"]


def test_show_config_prints_the_same(capsys):
    shown = fastdrop.show_config(mode="dicts")
    assert capsys.readouterr().out == ""
    assert fastdrop.show_config() is None
    text = capsys.readouterr().out
    for part in (
        f"fastdrop {shown['fastdrop']['version']}",
        shown["fastdrop"]["compiler"],
        shown["isa"]["used"],
        shown["numpy"]["version"],
        shown["numpy"]["blas"]["name"],
    ):
        assert part in text


def test_show_config_says_when_there_are_no_threads(capsys, monkeypatch):
    build = dict(kernels.build_info(), backend="c", threads=False)
    monkeypatch.setattr(config.kernels, "build_info", lambda: build, raising=False)
    fastdrop.show_config()
    assert "this build is single-threaded" in capsys.readouterr().out


def test_show_config_checks_mode():
    with pytest.raises(ValueError, match="mode must be None or \"dicts\", got 'json'"):
        fastdrop.show_config(mode="json")


def in_child(code, **environ):
    """Run code in a fresh interpreter with settings of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FASTDROP_")}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environ, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FASTDROP_NUM_THREADS", "0"),
        ("FASTDROP_NUM_THREADS", "two"),
        ("FASTDROP_ISA", "mmx"),
        ("FASTDROP_BACKEND", "fortran"),
    ],
)
def test_bad_settings_end_the_import(variable, value):
    child = in_child("import fastdrop", **{variable: value})
    assert child.returncode != 0
    message = child.stderr.strip().splitlines()[-1]
    assert variable in message
    assert value in message


def test_more_than_the_machine_has_ends_the_import():
    available = in_child(
        "import fastdrop; print(*fastdrop.show_config('dicts')['isa']['available'])"
    )
    missing = {"avx2", "avx512", "neon"} - set(available.stdout.split())
    child = in_child("import fastdrop", FASTDROP_ISA=min(missing))
    assert child.returncode != 0
    message = child.stderr.strip().splitlines()[-1]
    assert "FASTDROP_ISA" in message
    assert min(missing) in message


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_good_settings_are_used(backend):
    child = in_child(
        "import fastdrop; c = fastdrop.show_config('dicts'); "
        "print(c['fastdrop']['backend'], c['threads']['number'], c['threads']['built_in'])",
        FASTDROP_BACKEND=backend,
        FASTDROP_NUM_THREADS="3",
    )
    shown_backend, number, built_in = child.stdout.split()
    assert shown_backend == backend
    assert number == ("3" if built_in == "True" else "1")


def test_every_available_isa_can_be_chosen():
    available = in_child(
        "import fastdrop; print(*fastdrop.show_config('dicts')['isa']['available'])"
    )
    for isa in available.stdout.split():
        child = in_child(
            "import fastdrop; print(fastdrop.show_config('dicts')['isa']['used'])", FASTDROP_ISA=isa
        )
        assert child.stdout.split() == [isa]


def test_info_command_prints_show_config(capsys):
    fastdrop.show_config()
    expected = capsys.readouterr().out
    child = subprocess.run(
        [sys.executable, "-m", "fastdrop", "info"], capture_output=True, text=True, check=True
    )
    assert child.stdout == expected


def test_show_config_tells_the_blas_in_use(capsys):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    known = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
    blas = fastdrop.show_config(mode="dicts")["numpy"]["blas"]
    assert blas["kernel"] in [one.get("architecture") for one in known] or not known
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert fastdrop.show_config(mode="dicts")["numpy"]["blas"]["threads"] == 1 or not known
    fastdrop.show_config()
    text = capsys.readouterr().out
    assert "not FASTDROP_NUM_THREADS" in text
    if blas["kernel"]:
        assert f"kernels in use: {blas['kernel']}" in text


def test_show_config_without_threadpoolctl(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    blas = fastdrop.show_config(mode="dicts")["numpy"]["blas"]
    assert (blas["kernel"], blas["threads"]) == (None, None)
    fastdrop.show_config()
    assert "install threadpoolctl to see" in capsys.readouterr().out
