"""Libraries that only some commands need: imported when asked for, and named in one line where they are missing."""

import sys
import warnings

import pytest

from circuitlab.errors import CircuitlabError, MissingLibraryError, needs


def test_a_library_that_is_there_is_returned():
    assert needs("json", extra="report", what="circuitlab report").dumps([1]) == "[1]"


def test_a_missing_library_is_one_line_that_says_how_to_install_it():
    with pytest.raises(MissingLibraryError) as caught:
        needs("no_such_library_anywhere", extra="report", what="circuitlab report")
    text = str(caught.value)
    assert isinstance(caught.value, CircuitlabError)
    assert "\n" not in text
    for part in ("circuitlab report", "no_such_library_anywhere", 'pip install "circuitlab[report]"'):
        assert part in text


def test_a_library_that_lacks_another_names_that_one(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import its_missing_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingLibraryError, match="needs its_missing_part, which is not installed"):
        needs("half_installed", extra="nwb", what="circuitlab export nwb")


def test_a_broken_library_is_one_line_too(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text(
        "raise ImportError('libfoo.so: wrong ELF class\\nand more')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingLibraryError) as caught:
        needs("broken_library", extra="nwb", what="circuitlab export nwb")
    assert "libfoo.so: wrong ELF class;" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_warnings_of_a_library_s_import_reach_nobody(tmp_path, monkeypatch):
    (tmp_path / "loud_library.py").write_text(
        "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        needs("loud_library", extra="nwb", what="circuitlab export nwb")
    assert "loud_library" in sys.modules
