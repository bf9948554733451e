"""Fuzzing of everything that Sensebind reads: `python -m tests.fuzz TARGET --seconds N --inputs N --seed S`.

Hypothesis makes the inputs, because it knows their structure, makes a failing input smaller, and is a dependency of the
tests already. Atheris, which follows the coverage of C code, was left out: it has no wheels for all our Pythons.
"""
