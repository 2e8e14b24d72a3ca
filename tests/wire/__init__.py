"""The wire, tested as bytes: no socket, no process but where a real ``__main__`` is needed."""
