"""The commands: one module each, arguments in, text out. What a command knows of CDI stands in the rooms beside this one."""
