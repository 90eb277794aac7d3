"""Servers of ASGI and WSGI applications: one a module, each with `make_main`."""
