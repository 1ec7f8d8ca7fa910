"""Other energy tools beside our tracer, on one and the same minute of work: a module a tool, each as `PEER`.

No module imports its tool before it is run; a tool that is not there, refuses or hangs yields its reason.
"""
