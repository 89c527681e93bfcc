"""What the source must not do: run code that comes with data, or listen to other machines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "promptcot", "curriculum", "trainer", "evaluation", "flows")
SOURCES = sorted(
    path for folder in (*PACKAGES, "scripts") for path in (ROOT / folder).rglob("*.py")
)

CODE_LOADERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "runpy"}
ALLOWED = {
    # The file must have the sha256 that the recipe states, and no key is sent for it.
    ("pipeline/benchmark_sources.py", "follows redirects"),
    # Inside the sandbox, where untrusted programs are run to be graded.
    ("promptcot/verification/sandbox_driver.py", "calls exec"),
    # Where there is no https there is no certificate; redirects are not followed.
    ("promptcot/engines/http_connections.py", "may not verify certificates"),
}
"""What is found and right, each with its reason."""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def look_at_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    if keyword(call, "trust_remote_code") is not None and not is_constant(
        keyword(call, "trust_remote_code"), False
    ):
        yield "trusts remote code"
    loads_auto = last == "from_pretrained" and name.startswith("Auto")
    if (loads_auto or last in {"SentenceTransformer", "pipeline"}) and not is_constant(
        keyword(call, "trust_remote_code"), False
    ):
        yield "leaves remote code to the library"
    if last == "load_dataset" or name == "torch.hub.load":
        yield "loads by script"
    if name == "torch.load" and not is_constant(keyword(call, "weights_only"), True):
        yield "unpickles weights"
    allowed = keyword(call, "allow_pickle")
    if allowed is not None and not is_constant(allowed, False):
        yield "unpickles arrays"
    if name in {"yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system", "os.popen"}:
        yield f"calls {name}"
    if is_constant(keyword(call, "shell"), True):
        yield "starts a shell"
    if is_constant(keyword(call, "follow_redirects"), True):
        yield "follows redirects"
    verify = keyword(call, "verify")
    if verify is not None and any(is_constant(n, False) for n in ast.walk(verify)):  # type: ignore[arg-type]
        yield "may not verify certificates"


def is_any_host(node: ast.Tuple) -> bool:
    """Whether this is a socket's address without a host, which means all of this machine's."""
    return (
        len(node.elts) == 2
        and is_constant(node.elts[0], "")
        and "port" in ast.unparse(node.elts[1]).lower()
    )


def look_at(source: str) -> Iterator[tuple[int, str]]:
    """Lines and findings of a module."""
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        if isinstance(node, ast.Call):
            found += look_at_call(node)
        elif isinstance(node, ast.Import):
            found += [f"imports {a.name}" for a in node.names if a.name in CODE_LOADERS]
        elif isinstance(node, ast.ImportFrom) and node.module in CODE_LOADERS:
            found.append(f"imports {node.module}")
        elif (isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::")) or (
            isinstance(node, ast.Tuple) and is_any_host(node)
        ):
            found.append("names every interface")
        yield from ((node.lineno, finding) for finding in found)


def find_all() -> set[tuple[str, str]]:
    return {
        (path.relative_to(ROOT).as_posix(), finding)
        for path in SOURCES
        for _, finding in look_at(path.read_text(encoding="utf-8"))
    }


def test_no_code_comes_with_data_and_no_server_listens_to_other_machines() -> None:
    assert len(SOURCES) > 100
    assert find_all() - ALLOWED == set()


def test_allowances_are_still_needed() -> None:
    assert ALLOWED - find_all() == set()


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("LLM(model, trust_remote_code=True)", "trusts remote code"),
        ("AutoModel.from_pretrained(x, trust_remote_code=flag)", "trusts remote code"),
        ("AutoTokenizer.from_pretrained(folder)", "leaves remote code to the library"),
        ("SentenceTransformer(name)", "leaves remote code to the library"),
        ("datasets.load_dataset('x')", "loads by script"),
        ("import pickle", "imports pickle"),
        ("from joblib import load", "imports joblib"),
        ("torch.load(path)", "unpickles weights"),
        ("torch.load(path, weights_only=False)", "unpickles weights"),
        ("np.load(path, allow_pickle=True)", "unpickles arrays"),
        ("yaml.load(text)", "calls yaml.load"),
        ("subprocess.run(line, shell=True)", "starts a shell"),
        ("httpx.get(url, follow_redirects=True)", "follows redirects"),
        ("httpx.Client(verify=False)", "may not verify certificates"),
        ("serve(host='0.0.0.0')", "names every interface"),
        ("HTTPServer(('', port), Handler)", "names every interface"),
    ],
)
def test_each_of_these_would_be_found(source: str, finding: str) -> None:
    assert finding in {found for _, found in look_at(source)}


@pytest.mark.parametrize(
    "source",
    [
        "AutoModel.from_pretrained(x, trust_remote_code=False)",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "HTTPServer(('127.0.0.1', port), Handler)",
        "httpx.get(url)",
    ],
)
def test_what_is_right_is_not_found(source: str) -> None:
    assert list(look_at(source)) == []
