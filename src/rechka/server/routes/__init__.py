"""One module for each protocol: ``routes(service)`` gives its Starlette routes."""
