"""Toolkit for plugins whose engine runs in a worker process of ours."""
