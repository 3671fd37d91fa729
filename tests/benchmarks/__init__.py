"""Measurements, each printed with its spread; bars are judged against the spread of a control."""
