import pytest

from beyond_adam.dependencies import changed, closure, digest, imported_modules


@pytest.fixture
def package(tmp_path):
    files = {
        "__init__.py": "",
        "low.py": "X = 1",
        "other.py": "",
        "deep/__init__.py": "",
        "deep/one.py": "from ..low import X\nfrom . import two",
        "deep/two.py": "def f():\n    import pack.other\n",
    }
    for name, text in files.items():
        file = tmp_path / "pack" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "pack"


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import pack.deep.one", {"pack", "pack.deep", "pack.deep.one"}),
        ("from pack import low", {"pack", "pack.low"}),
        ("from pack.low import X", {"pack", "pack.low"}),
        ("import numpy, os.path\nfrom packaging import version", set()),
    ],
)
def test_imports_are_read_off_the_source(package, source, modules):
    assert imported_modules(source, package) == modules


def test_the_closure_follows_relative_nested_and_lazy_imports(package):
    found = closure(["pack.deep.one"], package)
    names = ["pack", "pack.deep", "pack.deep.one", "pack.deep.two", "pack.low", "pack.other"]
    assert list(found) == names
    assert found["pack.low"] == digest("X = 1")


def test_what_a_module_compiles_is_part_of_it(package):
    native = package / "low.cpp"
    native.write_text("int x;")
    assert closure(["pack.low"], package)["pack.low"] == digest("X = 1int x;")
    native.write_text("int y;")
    assert closure(["pack.low"], package)["pack.low"] == digest("X = 1int y;")


def test_a_module_that_is_not_there_is_named(package):
    with pytest.raises(ValueError, match=r"pack\.gone"):
        closure(["pack.gone"], package)


def test_what_changed_is_said_in_words():
    assert changed({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == [
        "b changed",
        "c is gone",
        "d is new",
    ]
