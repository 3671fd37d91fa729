"""The commands of this package; each is imported when it is used."""
