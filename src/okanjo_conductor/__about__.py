"""The version of the package, and its only home: the build reads it from here."""

__version__ = "0.1.0"
