"""Restoration for many users from one process: an HTTP service and a web page."""
