"""What the server says of its addresses and messages: OpenAPI for requests, AsyncAPI for sockets."""

from rechka.server.describe.asyncapi import asyncapi
from rechka.server.describe.openapi import openapi

__all__ = ["asyncapi", "openapi"]
