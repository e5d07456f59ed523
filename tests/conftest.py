"""Settings of all tests: no example of a property is timed, since a busy machine says nothing about the code."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
