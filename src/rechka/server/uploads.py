"""Uploaded recordings: forms and raw bodies on their way to a temporary file, bounded, and gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rechka.errors import BadRequest
from rechka.server.wire import loads

IN_MEMORY = 1 << 20
"""Bytes of an upload that are kept in memory; more goes to a temporary file without a name."""
MAX_FIELDS = 200
MAX_JSON_BYTES = 256 << 10
MAX_FIELD_BYTES = 256 << 10


@dataclass(frozen=True)
class Form:
    """A form with one recording."""

    file: IO[bytes] | None
    fields: FormData

    def one(self, name: str, default: str = "") -> str:
        """The last value of a field."""
        values = [value for value in self.fields.getlist(name) if isinstance(value, str)]
        return values[-1] if values else default

    def many(self, name: str) -> list[str]:
        """All values of ``name[]`` and ``name``."""
        values = [*self.fields.getlist(f"{name}[]"), *self.fields.getlist(name)]
        return [value for value in values if isinstance(value, str)]


@contextlib.asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[Form]:
    """The form of a request; its file is gone afterwards.

    Raises:
        BadRequest: no form, or one that is too complicated.
        TooLarge: from the gate.
    """
    try:
        fields = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException as error:
        raise BadRequest(f"the form cannot be read: {error.detail}", remedy="send multipart/form-data") from None
    try:
        upload = fields.get("file")
        yield Form(upload.file if isinstance(upload, UploadFile) else None, fields)
    finally:
        await fields.close()


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request; an empty body is an empty object.

    Raises:
        BadRequest: no object, or a body that is too long for one.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise BadRequest(f"the JSON is longer than {MAX_JSON_BYTES >> 10} KiB")
    return loads(body or b"{}")


@contextlib.asynccontextmanager
async def body_of(request: Request) -> AsyncIterator[IO[bytes]]:
    """The body of a request as a file, at its beginning."""
    loop = asyncio.get_running_loop()
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        async for piece in request.stream():
            await loop.run_in_executor(None, file.write, piece)
        file.seek(0)
        opened: Any = file
        yield opened
