"""The line against the lab: real Kafka, every service, three hosted providers that are made to fail, and their bill.

`python -m tests.lab.line --requests 2000 --seed N`; a small one is a test (tests/integration/test_lab_line.py).
"""
