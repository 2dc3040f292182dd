"""Reports: a version, runs or an audit as one HTML file that needs no network and no script."""
