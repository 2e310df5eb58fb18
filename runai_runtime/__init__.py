"""GPU memory limits for plain Docker. Importing this package loads nothing: the shim starts with it."""
