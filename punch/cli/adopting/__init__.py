"""What commands have to do with adopted servers: the settings made real, and `punch adopt`.

Imported by name: the command needs no listener, and a program with a listener no command.
"""
