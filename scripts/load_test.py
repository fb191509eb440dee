"""Load on `swinir serve`: `python scripts/load_test.py --clients 200 --requests 2000 --corpus FOLDER`.

The script starts the service, with a small network of random weights, on a free port of 127.0.0.1. Clients send tiny
images, and for a share of the requests hostile files: made here, and drawn from the files of a corpus. After half of
the requests the service is killed (SIGKILL) and started again; requests that this interrupts are sent again. Checked:
every good image is answered with the same bytes as by `swinir restore`; nothing is answered with 5xx; no file is left.
Memory is the resident memory that `/metrics` reports. Needs the extra `serve` and httpx2.
"""

import asyncio
import io
import json
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx2
import numpy as np
import torch
import typer
from PIL import Image

from swinir.atomic import atomic_path
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.service.folders import PREFIX
from swinir.weights.checkpoint import write_checkpoint

NETWORK = NetworkConfig(
    embed_dim=8, depths=(1,), num_heads=(2,), window_size=4, img_size=8, upsampler="pixelshuffledirect", upscale=2
)
LIMITS = ("--max-mb", "0.25", "--max-pixels", "0.02", "--max-jobs", "256")
PATIENCE = 600.0  # seconds for an answer
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Upload:
    """A file with its name and fields; `expected` are the bytes of the answer, None for hostile ones."""

    content: bytes
    name: str = "image.png"
    fields: dict[str, str] = field(default_factory=dict)
    expected: bytes | None = None


@dataclass
class Tally:
    """Answers so far."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of good images, without those that were interrupted
    interrupted: int = 0
    wrong: int = 0  # good images that were answered with other bytes
    done: int = 0


class Service:
    """The process, which can be killed and started again on the same port."""

    def __init__(self, folder: Path, expert: Path) -> None:
        self.folder, self.expert, self.port = folder, expert, 0
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        command = [sys.executable, "-m", "swinir", "serve", "--device", "cpu", "-n", str(self.expert), *LIMITS]
        words = ["--port", str(self.port), "--folder", str(self.folder)]
        self.process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+) ", line)
        if found is None:
            raise RuntimeError(f"the service did not start: {line}{self.process.stderr.read()}")
        self.port = int(found[1])

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def end(self, kind: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(kind)
        return self.process.wait(PATIENCE)


def png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def hostile_uploads(good: bytes, corpus: Path | None) -> list[Upload]:
    """Files and fields that a service should refuse, and files of a corpus, some of which are images."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + good[33:]
    made = [
        Upload(b""), Upload(b"GIF89a"), Upload(random.Random(0).randbytes(5000), "noise.jpg"), Upload(good[:-40]),
        Upload(good[:60] + b"\0\0\0\0" + good[64:]), Upload(bomb, "bomb.png"), Upload(bytes(2**19), "long.bmp"),
        Upload(b"PK\x03\x04" + bytes(500), "image.zip"), Upload(good, fields={"scale": "1e9"}),
        Upload(good, fields={"model": "../../etc/passwd"}), Upload(good, fields={"output": "/etc/passwd"}),
        Upload(b"<script>", "../../../etc/passwd\r\n\x1b[31m"), Upload(good, fields={"tile_overlap": "-1"}),
    ]  # fmt: skip
    files = sorted(path for path in corpus.rglob("*") if path.is_file()) if corpus else []
    return made + [Upload(path.read_bytes(), path.name) for path in files]


async def send(client: httpx2.AsyncClient, address: str, upload: Upload, tally: Tally) -> None:
    """Send a file until it is answered, and count the answer."""
    kind, again = "hostile" if upload.expected is None else "good", False
    while True:
        started = time.perf_counter()
        try:
            fields = {"model": "load.pth"} | upload.fields
            files = {"image": (upload.name, upload.content)}
            answer = await client.post(f"{address}/v1/restore", files=files, data=fields)
        except httpx2.TransportError:  # killed
            tally.interrupted += not again
            again = True
            await asyncio.sleep(0.5)
            continue
        break
    tally.statuses[kind, answer.status_code] += 1
    if upload.expected is not None:
        tally.wrong += answer.content != upload.expected
        tally.seconds += [time.perf_counter() - started] * (not again)
    elif answer.status_code != 200 and list(answer.json()) != ["detail"]:
        tally.wrong += 1
    tally.done += 1


async def memory(address: str) -> float:
    """Resident memory of the service in 1e6 bytes."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        text = (await client.get(f"{address}/metrics")).text
    found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.M)
    assert found is not None
    return float(found[1]) / 1e6


async def load(service: Service, uploads: list[Upload], clients: int, tally: Tally, *, kill: bool) -> list[float]:
    """Send all files by so many clients at a time; the memory after each quarter of them."""
    waiting, measured = iter(uploads), []
    quarters = [len(uploads) * part // 4 for part in (1, 2, 3, 4)]

    async def client() -> None:
        async with httpx2.AsyncClient(timeout=PATIENCE) as connection:
            for upload in waiting:
                await send(connection, service.address, upload, tally)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    for quarter in quarters:
        while tally.done < quarter and not all(task.done() for task in tasks):
            await asyncio.sleep(0.2)
        measured.append(await memory(service.address))
        if kill and quarter == quarters[1]:
            await asyncio.to_thread(service.end, signal.SIGKILL)
            await asyncio.to_thread(service.start)
            measured.append(await memory(service.address))
    await asyncio.gather(*tasks)
    return measured


@app.command()
def run(
    clients: Annotated[int, typer.Option("--clients", min=1)] = 200,
    requests: Annotated[int, typer.Option("--requests", min=8)] = 2000,
    hostile: Annotated[float, typer.Option("--hostile", min=0, max=1, help="Share of the requests.")] = 0.1,
    corpus: Annotated[Path | None, typer.Option("--corpus", help="Folder of more hostile files.")] = None,
    side: Annotated[int, typer.Option("--side", min=8, help="Of the images, in pixels.")] = 24,
    kill: Annotated[bool, typer.Option("--kill/--no-kill", help="Kill and restart the service halfway.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Measure answers, times and memory under load; exit code 1 if an answer was not as it should be."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        write_checkpoint(folder / "load.pth", SwinIR(NETWORK).state_dict(), NETWORK)
        images = [png(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(4)]
        good = [Upload(image, expected=commanded(image, folder)) for image in images]
        bad = hostile_uploads(images[0], corpus)
        draw = random.Random(0)
        uploads = [draw.choice(bad if draw.random() < hostile else good) for _ in range(requests)]
        places = folder / "service"
        places.mkdir()
        service, tally = Service(places, folder / "load.pth"), Tally()
        asyncio.run(load(service, good * 5, 4, Tally(), kill=False))  # loads the model, fills the caches
        measured = [asyncio.run(memory(service.address))]
        started = time.perf_counter()
        measured += asyncio.run(load(service, uploads, clients, tally, kill=kill))
        seconds = time.perf_counter() - started
        left = [len(list(one.iterdir())) for one in places.glob(f"{PREFIX}*")]  # the lock, and what a kill left
        code = service.end(signal.SIGTERM)
    times = np.sort(tally.seconds)
    report = {
        "clients": clients, "requests": requests, "seconds": seconds, "answers": {
            f"{kind} {status}": count for (kind, status), count in sorted(tally.statuses.items())
        },
        "p50": float(np.quantile(times, 0.5)), "p95": float(np.quantile(times, 0.95)),
        "interrupted": tally.interrupted, "wrong": tally.wrong, "memory": measured, "entries_left": left, "exit": code,
    }  # fmt: skip
    typer.echo(json.dumps(report, indent=2))
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    faults = tally.wrong + sum(n for (kind, status), n in tally.statuses.items() if status >= 500)
    faults += sum(n for (kind, status), n in tally.statuses.items() if kind == "good" and status != 200)
    raise typer.Exit(int(faults > 0 or code != 0))


def commanded(image: bytes, folder: Path) -> bytes:
    """The output of `swinir restore` for an image."""
    source, target = folder / "image.png", folder / "output.png"
    source.write_bytes(image)
    words = ["restore", str(source), "-n", str(folder / "load.pth"), "-o", str(target), "--overwrite", "-q"]
    subprocess.run([sys.executable, "-m", "swinir", *words, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    return target.read_bytes()


if __name__ == "__main__":
    app()
