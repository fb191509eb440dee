"""`swinir web`: usage errors are one line."""

import socket
import sys

import pytest

from swinir.cli.main import main


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["web"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "swinir: gradio is not installed; install it with: pip install 'swinir-toolkit[web]'"


@pytest.mark.extras
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1, port 7860: "),
        (["--keep-seconds", "0"], "keep must be positive, got 0"),
        (["--max-mb", "0"], "max_bytes must be positive, got 0"),
    ],
)
def test_wrong_options_are_one_line(capsys, words, message):
    pytest.importorskip("gradio", reason="gradio comes with the extra `web`")
    assert main(["web", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"swinir: {message}")


@pytest.mark.extras
def test_a_port_in_use_is_one_line(capsys):
    pytest.importorskip("gradio", reason="gradio comes with the extra `web`")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["web", "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"swinir: cannot listen on 127.0.0.1, port {port}: ")
