"""Protocol fuzzing: the real server under malformed messages, odd edits and rude clients, held to the client's text.

`python -m benchmarks.fuzz` runs it all; `python -m benchmarks.fuzz.guided` lets a coverage-guided fuzzer (atheris) look
for inputs that break a function. docs/fuzzing.md says what is covered and what was found; cases that broke something
are kept in `tests/fuzz/cases`.
"""
