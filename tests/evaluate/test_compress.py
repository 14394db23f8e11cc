"""Compressors as a baseline: what is counted, what is not, and that priming gives them the project without the file."""

import builtins
import lzma
import random

import pytest

from lsp_charrnn.errors import CorpusError, UserError
from lsp_charrnn.evaluate.compress import measure_compressors, ppmd_bits, rest_of_project, xz_bits
from lsp_charrnn.train.corpus import SourceFile

COMPRESSORS = pytest.mark.parametrize("bits", [ppmd_bits, xz_bits])


def a_file(text, path="a.py", project="p"):
    return SourceFile(project, path, text if isinstance(text, bytes) else text.encode(), "python")


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def code(seed, lines=120):
    """Lines of a small grammar: different for each seed, and alike."""
    draw = random.Random(seed)
    words = ["token", "session", "request", "header", "value", "cookie", "default", "timeout"]
    return "".join(
        f"    self.{draw.choice(words)} = {draw.choice(words)}_{draw.choice(words)}({draw.randint(0, 99)})\n"
        for _ in range(lines)
    ).encode()


def by_name(rows):
    return {(row.compressor, row.way): row for row in rows}


@COMPRESSORS
def test_nothing_costs_nothing(bits):
    assert bits(b"") == 0.0
    assert bits(b"", after=code(1)) == 0.0


@COMPRESSORS
def test_noise_costs_what_it_holds_and_no_container(bits):
    text = noise(200_000)
    assert bits(text) / len(text) == pytest.approx(8.0, rel=0.04)
    assert bits(text) >= 7.99 * len(text)


@COMPRESSORS
def test_a_constant_text_costs_next_to_nothing(bits):
    assert 0.0 <= bits(b"a" * 100_000) < 2_000


@COMPRESSORS
def test_a_text_is_cheap_after_itself_and_cheaper_after_its_like(bits):
    text = code(1)
    assert bits(text, after=text) < 0.4 * bits(text)
    assert bits(text, after=code(2)) < 0.9 * bits(text)


@COMPRESSORS
def test_the_parts_add_up_to_the_whole(bits):
    first, second = code(1), code(2)
    assert bits(first) + bits(second, after=first) == bits(first + second)


@COMPRESSORS
def test_far_away_is_remembered(bits):
    text = noise(5_000)
    assert bits(text, after=text + code(1, lines=8_000)) < 0.02 * bits(text)


@COMPRESSORS
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_a_few_bytes_never_cost_less_than_nothing(bits, size):
    for seed in range(40):
        assert bits(code(seed)[-size:], after=code(seed)[:-size]) >= 0.0


@pytest.mark.parametrize(
    "text",
    [b"x", code(1), code(1, lines=10_000), noise(3_000), noise(150_000), noise(70_000) + 160 * code(3, lines=400)],
    ids=["one byte", "code", "chunks of code", "noise", "chunks of noise", "more than 2 MiB of both"],
)
def test_xz_costs_its_file_without_the_container(text):
    """LZMA1 holds the same without chunks: 13 bytes of header, 5 of range coder, about 6 of end marker."""
    alone = lzma.compress(text, format=lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
    container = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME, check=lzma.CHECK_NONE)
    assert xz_bits(text) <= 8 * (len(container) - 40)
    # Noise is stored as it is by LZMA2, which LZMA1 can't.
    assert xz_bits(text) == pytest.approx(8 * (len(alone) - 13 - 5 - 6), rel=0.02, abs=40)


def test_ppmd_costs_its_stream_without_its_end():
    from pyppmd import Ppmd8Decoder, Ppmd8Encoder

    text = code(1)
    encoder = Ppmd8Encoder(16, 1 << 24, 0)
    stream = encoder.encode(text) + encoder.flush(endmark=False)
    assert Ppmd8Decoder(16, 1 << 24, 0).decode(stream, len(text)) == text
    assert ppmd_bits(text) == 8 * (len(stream) - 4)


def test_the_rest_is_in_order_and_holds_neither_the_file_nor_its_copies():
    file = a_file("b = 1\n", "b.py")
    project = [
        a_file("z\n", "z.py"),
        file,
        a_file("a\n", "a.py"),
        a_file("b = 1\n", "c.py"),
        a_file("o\n", "o.py", "q"),
    ]
    assert [other.path for other in rest_of_project(file, project)] == ["a.py", "z.py"]


def test_the_rest_of_a_file_cut_short_lacks_the_whole_of_it():
    whole = a_file("b = 1\nc = 2\n", "b.py")
    project = [whole, a_file("b = 1\nc = 2\n", "copy.py"), a_file("a\n")]
    assert [other.path for other in rest_of_project(a_file("b = 1\n", "b.py"), project)] == ["a.py"]


def test_rows_weigh_every_character_the_same():
    files = [a_file(code(n, 30 * (n + 1)), f"{n}.py", f"p{n % 2}") for n in range(4)]
    seen = []
    rows = measure_compressors(files[::-1], projects=files, progress=lambda done, total: seen.append((done, total)))
    assert list(by_name(rows)) == [("PPMd-16", "cold"), ("PPMd-16", "primed"), ("xz -9e", "cold"), ("xz -9e", "primed")]
    total = sum(len(file.text) for file in files)
    assert seen[-1] == (total, total)
    for row in rows:
        data = row.to_json()
        assert [(file.project, file.path) for file in row.files] == [
            ("p0", "0.py"),
            ("p0", "2.py"),
            ("p1", "1.py"),
            ("p1", "3.py"),
        ]
        assert data["characters"] == total
        assert data["bits_per_char"] == pytest.approx(sum(file.bits for file in row.files) / total)
        assert list(data["projects"]) == ["p0", "p1"]
        assert data["files"]["p0/0.py"] == row.files[0].bits / row.files[0].characters


def test_each_file_is_primed_with_the_rest_of_its_project():
    files = [a_file(code(n), f"{n}.py", f"p{n % 2}") for n in range(5)]
    rows = by_name(measure_compressors(files, projects=files))
    for name, bits in (("PPMd-16", ppmd_bits), ("xz -9e", xz_bits)):
        assert rows[name, "cold"].files[1].bits == bits(code(2))
        assert rows[name, "primed"].files[1].bits == bits(code(2), after=code(0) + code(4))
        assert rows[name, "primed"].bits_per_char < rows[name, "cold"].bits_per_char


def test_threads_change_nothing():
    files = [a_file(code(n), f"{n}.py") for n in range(6)]
    assert measure_compressors(files, projects=files, threads=3) == measure_compressors(files, projects=files)


def test_a_project_of_one_file_has_nothing_to_prime_with():
    rows = by_name(measure_compressors([a_file(code(1))], projects=[a_file(code(1))]))
    assert rows["PPMd-16", "primed"].files == rows["PPMd-16", "cold"].files


def test_what_cannot_be_measured_is_one_sentence(monkeypatch):
    with pytest.raises(CorpusError, match="nothing to measure"):
        measure_compressors([], projects=[])
    with pytest.raises(CorpusError, match=r"The project p of a\.py is missing"):
        measure_compressors([a_file("a")], projects=[a_file("b", project="q")])
    real = builtins.__import__

    def without_ppmd(name, *args, **kwargs):
        if name == "pyppmd":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ppmd)
    with pytest.raises(UserError, match="pip install pyppmd"):
        measure_compressors([a_file("a")], projects=[a_file("a")])
