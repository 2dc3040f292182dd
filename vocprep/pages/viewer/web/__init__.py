"""The viewer's web server: which requests are answered, by what, and where it listens."""
