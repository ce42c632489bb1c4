"""The picture page: look at what a server's generators make, in a browser.

``galatea ui`` serves it; :func:`galatea.ui.application` is the same as an ASGI application. The
address of a page is its state, and the address of a picture tells everything that made it. Needs
the extra ``ui``.
"""

from galatea.ui._app import application

__all__ = ["application"]
