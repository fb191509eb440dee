"""`swinir serve`: mistakes are told in one line before anything is served."""

import socket
import sys

import pytest
from pictures import write_expert

from swinir.cli.main import main

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@pytest.fixture
def serve(capfd):
    """A function that runs the command and gives the one line that it prints."""

    def run(*words):
        assert main(["serve", "--device", "cpu", *map(str, words)]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        return line.removeprefix("swinir: ")

    return run


@pytest.mark.parametrize("module", NEEDED)
def test_an_absent_extra_is_named(serve, monkeypatch, module):
    for other in NEEDED[: NEEDED.index(module)]:
        monkeypatch.setitem(sys.modules, other, sys)
    monkeypatch.setitem(sys.modules, module, None)
    assert serve() == f"{module} is not installed; install it with: pip install 'swinir-toolkit[serve]'"


class TestWithTheExtra:
    @pytest.fixture(autouse=True)
    def _installed(self):
        for name in NEEDED:
            pytest.importorskip(name, reason="the extra serve is not installed")

    def test_a_port_in_use_is_named(self, serve):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            assert serve("--port", port) == (
                f"cannot listen on 127.0.0.1, port {port}: Address already in use; choose another --host or --port"
            )

    def test_an_empty_token_is_no_token(self, serve, tmp_path):
        (tmp_path / "token").write_text(" \n")
        assert serve("--token-file", tmp_path / "token") == f"{tmp_path}/token is empty; write a token into it"

    def test_a_model_that_is_not_there_stops_the_start(self, serve, tmp_path):
        assert str(tmp_path / "none.pth") in serve("-n", tmp_path / "none.pth")

    def test_two_models_of_one_name_are_refused(self, serve, tmp_path):
        (tmp_path / "b").mkdir()
        paths = [write_expert(tmp_path / "x2.pth"), write_expert(tmp_path / "b" / "x2.pth")]
        assert serve("-n", paths[0], "-n", paths[1]).startswith("two of the models have one file name: ")

    @pytest.mark.parametrize("words", [("--max-mb", "0"), ("--max-pixels", "-1"), ("--keep-seconds", "0")])
    def test_a_limit_out_of_range_is_named(self, serve, words):
        assert words[0].strip("-").split("-")[0] in serve("--port", "0", *words)
