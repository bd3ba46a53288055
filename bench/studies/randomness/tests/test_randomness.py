"""The randomness script: its sequences, its limit, and that it catches a weakened generator."""

import numpy
import pytest

import fastdrop
from bench.studies.randomness import __main__ as command
from bench.studies.randomness import batteries, chisquare, normals, report, runs, sequences
from bench.studies.randomness.runs import Run, Verdict


@pytest.fixture(autouse=True)
def restore_rounds(monkeypatch):
    """Tests may change the reference's number of rounds."""
    monkeypatch.setattr(fastdrop.reference.stream, "ROUNDS", sequences.ROUNDS)


def unpacked(data):
    return numpy.unpackbits(numpy.frombuffer(data, numpy.uint8), bitorder="little")


# --- Sequences ---------------------------------------------------------------------------------


def test_words_are_what_philox_makes_of_one_block_after_the_other():
    data = numpy.frombuffer(next(sequences.words()), numpy.uint32)
    key = numpy.random.SeedSequence(sequences.SEED).generate_state(2, numpy.uint32)
    for place, (block, digit) in {0: (0, 0), 63: (0, 63), 64: (1, 0), 1000: (15, 40)}.items():
        expected = fastdrop.reference.philox4x32((block, 0, 0, digit), key)
        assert data[4 * place : 4 * place + 4].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "stream_of"),
    [
        ("draws", lambda number: (fastdrop.MaskStream(sequences.SEED), number)),
        ("seeds", lambda number: (fastdrop.MaskStream(number), 0)),
        ("spawned", lambda number: (fastdrop.MaskStream(sequences.SEED).spawn(4)[number], 0)),
    ],
)
def test_neighbours_are_interleaved_block_by_block(name, stream_of):
    data = next(sequences.SEQUENCES[name]())
    assert len(data) == sequences.CHUNK
    for block in (0, 1, 63):
        for number in range(4):
            stream, draw = stream_of(number)
            bits = stream.draw((64 * 128,), rate=0.5, at=draw).bits.tobytes()
            start = 16 * (block * sequences.NEIGHBOURS + number)
            assert data[start : start + 16] == bits[16 * block : 16 * block + 16]


def test_unit_major_is_the_mask_transposed():
    chunks = sequences.unit_major()
    rows = 8 * sequences.CHUNK // 1024
    mask = fastdrop.MaskStream(sequences.SEED).draw((rows, 1024), rate=0.5, at=0).to_array()
    columns = numpy.unpackbits(numpy.frombuffer(next(chunks) + next(chunks), numpy.uint8))
    numpy.testing.assert_array_equal(columns.reshape(16, rows), mask.T[:16])


def test_odd_rates_give_as_many_ones_as_zeros():
    """Of n fair bits, within 5 sigma."""
    bits = unpacked(next(sequences.odd_rates()))
    pairs = sequences.ODD_DRAW // 2
    keep_prob = sequences.ODD_KEEP_PROBS[0]
    differ = 2 * keep_prob * (1 - keep_prob)
    assert abs(bits.size - pairs * differ) < 5 * (pairs * differ * (1 - differ)) ** 0.5 + 32
    assert abs(bits.sum(dtype=int) - bits.size / 2) < 2.5 * bits.size**0.5


def test_kernels_with_another_number_of_rounds_are_noticed():
    sequences.set_rounds(10)
    with pytest.raises(sequences.WrongGenerator, match="do not make 3 rounds"):
        sequences.set_rounds(3)


# --- The small battery and the limit -----------------------------------------------------------


def test_the_weakened_generator_is_caught_where_the_stream_passes():
    """End to end, two processes each; a perfect source fails with probability 0.001."""
    found = [runs.perform(rounds, "words", batteries.chi_square()) for rounds in (10, 3)]
    stream, weak, fine = report.conclusion(found)
    assert fine
    assert stream == []
    assert ("words", "chi-square", "pairs, 16 bytes apart") in [failure[:3] for failure in weak]
    assert found[0].volume >= 1 << 22


def test_the_weakened_generator_is_caught_in_masks(monkeypatch):
    """With the reference: block 0 of 2^15 draws, at three rounds and at ten."""

    def p_value(rounds):
        monkeypatch.setattr(fastdrop.reference.stream, "ROUNDS", rounds)
        output = fastdrop.reference.philox4x32((0, 0, numpy.arange(1 << 15), 0), (1, 2))
        return min(chisquare.p_values(numpy.ascontiguousarray(output.T)).values())

    assert p_value(3) < 1e-10 < 1e-5 < p_value(10)


def test_the_limit_counts_all_tests_of_the_stream_and_both_ends():
    p_values = [("a", 0.5)] * 98 + [("low", 4.9e-6), ("high", 1 - 4.9e-6)]
    stream = Run(10, "bits", "x", 1, 0.0, p_values)
    weak = Run(3, "bits", "x", 1, 0.0, [("a", 5.1e-6), ("b", 0.0)])
    control = Run(10, "control", "x", 1, 0.0, [("a", 0.0)] * 1000)
    verdict = report.judge([stream, weak, control])
    assert verdict == Verdict(100)
    assert verdict.limit == pytest.approx(5e-6)
    assert [name for name, _ in verdict.failures(stream)] == ["low", "high"]
    assert verdict.failures(weak) == [("b", 0.0)]
    assert len(verdict.failures(control)) == 1000
    small_only = Run(10, "bits", "dieharder", 1, 0.0, [("low", 4.9e-6), ("high", 1.0)])
    assert verdict.failures(small_only) == [("low", 4.9e-6)]
    assert verdict.failures(Run(10, "bits", "x", 1, 0.0, [("nan", float("nan"))])) != []


# --- The command -------------------------------------------------------------------------------


def stored(path, *found):
    for run in found:
        runs.save(path, run)
    return ["--sequences", "bits", "--batteries", "chi-square", "--results", str(path)]


@pytest.mark.parametrize(
    ("stream_p", "weak_p", "status"), [(0.5, 0.0, 0), (0.5, 0.5, 1), (1e-9, 0.0, 1)]
)
def test_the_status_says_whether_all_is_well(tmp_path, capsys, stream_p, weak_p, status):
    arguments = stored(
        tmp_path / "results" / "runs.jsonl",
        Run(10, "bits", "chi-square", 10**6, 1.0, [("bytes", stream_p)]),
        Run(3, "bits", "chi-square", 10**6, 1.0, [("bytes", weak_p)]),
    )
    assert command.main(arguments) == status
    output = capsys.readouterr().out
    assert ("the stream failed: bits chi-square bytes 1e-09" in output) == (stream_p < 0.1)
    assert ("the weakened generator was not caught" in output) == (weak_p > 0.1)


@pytest.mark.parametrize("weak_p", [0.0, 1e-9])
def test_the_weakened_generator_goes_on_until_it_is_caught(tmp_path, monkeypatch, weak_p):
    asked = []

    def perform(rounds, sequence, battery, package):
        asked.append((rounds, sequence, battery.name))
        return Run(rounds, sequence, battery.name, 1, 0.0, [("x", 0.5)])

    monkeypatch.setattr(command, "perform", perform)
    monkeypatch.setattr(command, "weakened", lambda folder: folder)
    monkeypatch.setitem(
        command.BATTERIES, "dieharder", lambda: batteries.Battery("dieharder", (), None)
    )
    path = tmp_path / "runs.jsonl"
    stored(path, Run(3, "bits", "chi-square", 1, 0.0, [("bytes", weak_p)]))
    options = ["--sequences", "bits", "--batteries", "chi-square", "dieharder"]
    command.main([*options, "--results", str(path)])
    expected = [(10, "bits", "chi-square"), (10, "bits", "dieharder")]
    assert asked == expected + [(3, "bits", "dieharder")] * (weak_p > 1e-12)


def test_the_page_is_rewritten_below_its_marker(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{report.MARKER}\n\nold\n")
    monkeypatch.setattr(command, "PAGE", page)
    found = [
        Run(rounds, "bits", "chi-square", 5 * 10**6, 1.0, [("bytes", p), ("bytes", 0.25)])
        for rounds, p in ((10, 0.5), (3, 0.0))
    ]
    assert command.main([*stored(tmp_path / "runs.jsonl", *found), "--write"]) == 0
    text = page.read_text()
    assert text.startswith(f"# Title\n\n{report.MARKER}\n\n## Results\n")
    assert "old" not in text
    assert "| bits | 0 of 2 | chi-square | 2.5e-01 | 1 of 2 | chi-square |" in text
    assert "| chi-square | bytes | 0.5000 |\n| chi-square | bytes | 0.2500 |" in text
    with pytest.raises(ValueError, match="no line"):
        report.document("no marker", found, "a machine")


def test_a_battery_without_results_is_an_error():
    battery = batteries.Battery("false", (("false",),), batteries.read_lines)
    with pytest.raises(batteries.BatteryFailed, match="false"):
        runs.perform(10, "control", battery)


def test_missing_batteries_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.BATTERIES, "dieharder", lambda: None)
    options = ["--batteries", "dieharder", "--results", str(tmp_path / "runs.jsonl")]
    assert command.main(options) == 1
    assert "not installed: dieharder" in capsys.readouterr().out


# --- Normal numbers ----------------------------------------------------------------------------


def test_normal_numbers_pass_and_worse_ones_do_not(monkeypatch, capsys):
    assert normals.main(["--numbers", str(1 << 20)]) == 0
    assert "0 of" in capsys.readouterr().out
    right = normals._chunks
    for worse in (lambda z: z * 1.01, lambda z: numpy.round(z, 2), lambda z: z.clip(-4, 4)):
        monkeypatch.setattr(normals, "_chunks", lambda n, worse=worse: map(worse, right(n)))
        assert normals.main(["--numbers", str(1 << 20)]) == 1


def test_the_accuracy_that_the_page_promises():
    radius, circle = normals.accuracy(step=2047)
    assert 2**-26 < radius < 2**-22
    assert 2**-26 < circle < 2**-22
