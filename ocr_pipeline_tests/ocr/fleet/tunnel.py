"""A tunnel before a server, as cloudflared is one: its connections can be lost although the server is well."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

_AWAY = b"HTTP/1.1 530 Origin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # Cloudflare's own status


class Tunnel:
    """`async with Tunnel(port) as tunnel`: `tunnel.url` leads to the server on that port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._up = True
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self._lose()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def blip(self, seconds: float) -> None:
        """Every connection is lost, and for so long none leads to the server."""
        self._up = False
        self._lose()
        await asyncio.sleep(seconds)
        self._up = True

    def _lose(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if not self._up:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_AWAY)
                await writer.drain()
                writer.close()
                return
            there, onward = await asyncio.open_connection("127.0.0.1", self._port)
            ends = {writer, onward}
            self._open |= ends
            await asyncio.gather(_pump(reader, onward), _pump(there, writer))
            self._open -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
