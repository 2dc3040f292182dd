"""The viewer: a web server on this machine alone that shows versions and runs in the browser."""
