"""Commands about models that are bigger than one machine: what fits where, and who lends memory.

Each brings much with it, so that whoever runs one imports its file, and the others stay away.
"""
