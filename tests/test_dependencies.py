import pytest

from beyond_adam.dependencies import changed, closure, code_digest, digest, imported_modules


@pytest.fixture
def package(tmp_path):
    files = {
        "__init__.py": "Z = 1",
        "low.py": "X = 1",
        "other.py": "",
        "deep/__init__.py": "Y = 1",
        "deep/one.py": "from ..low import X\nfrom . import two",
        "deep/two.py": "def f():\n    import pack.other\n",
        "hub/__init__.py": '"""Hub."""\nfrom pack.hub.a import A\nfrom .b import B\n__all__ = []',
        "hub/a.py": "A = 1",
        "hub/b.py": "B = 1",
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
        ("from pack.hub import A", {"pack", "pack.hub.a"}),
        ("from pack.hub import b", {"pack", "pack.hub.b"}),
        ("from pack import hub", {"pack", "pack.hub.a", "pack.hub.b"}),
        ("import pack.hub", {"pack", "pack.hub.a", "pack.hub.b"}),
        ("import pack.hub.b", {"pack", "pack.hub.b"}),
        ("from pack.deep import nothing", {"pack", "pack.deep"}),
    ],
)
def test_imports_are_read_off_the_source(package, source, modules):
    assert imported_modules(source, package) == modules


def test_the_closure_follows_relative_nested_and_lazy_imports(package):
    found = closure(["pack.deep.one"], package)
    names = ["pack", "pack.deep", "pack.deep.one", "pack.deep.two", "pack.low", "pack.other"]
    assert list(found) == names
    assert found["pack.low"] == code_digest("X = 1")
    with_docstrings = closure(["pack.deep.one"], package, docstrings=True)
    assert list(with_docstrings) == names
    assert with_docstrings["pack.low"] == digest("X = 1")


def test_a_digest_of_code_is_of_what_it_does():
    code = "x = 1\ndef f(a):\n    return f'{a} {x!r:>5}'"
    prose = '"""Of x."""\nx = 1  # one\n\ndef f(a):\n    """Do."""\n    return f"{a} {x!r:>5}"'
    assert code_digest(code) == code_digest(prose)
    for other in ("1.0", "2", "'1'", "b'1'", "True", "-1"):
        assert code_digest(code) != code_digest(code.replace("1", other))
    assert code_digest("f(a, b)") != code_digest("f([a, b])")


def test_what_a_module_compiles_is_part_of_it(package):
    native = package / "low.cpp"
    native.write_text("int x;")
    assert closure(["pack.low"], package, docstrings=True)["pack.low"] == digest(
        digest("X = 1") + "int x;"
    )
    native.write_text("int y;")
    assert closure(["pack.low"], package)["pack.low"] == digest(code_digest("X = 1") + "int y;")


def test_a_module_that_is_not_there_is_named(package):
    with pytest.raises(ValueError, match=r"pack\.gone"):
        closure(["pack.gone"], package)


def test_what_changed_is_said_in_words():
    assert changed({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == [
        "b changed",
        "c is gone",
        "d is new",
    ]
