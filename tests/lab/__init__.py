"""The provider lab: a server that speaks the contracts of hosted providers, keeps their bill, and fails as told.

`python -m tests.lab` starts it; tests/kit/lab.py talks to it. Each provider is one file written from its documented
API, none of it from our adapters: that the two agree is what the suite shows.
"""
